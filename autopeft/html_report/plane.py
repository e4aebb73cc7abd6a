"""A plane to draw on in SVG: two axes, linear or logarithmic, with round ticks, on which up and left is better."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 860.0, 420.0
LEFT, RIGHT, TOP, BOTTOM = 70.0, 20.0, 20.0, 56.0


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis.

    Attributes:
        title: For people.
        low: Lowest value shown.
        high: Highest value shown, above ``low``.
        logarithmic: Whether it is a log scale (``low`` > 0).
        turned: Whether it runs from high to low.
    """

    title: str
    low: float
    high: float
    logarithmic: bool = False
    turned: bool = False

    @classmethod
    def around(cls, title: str, values: Sequence[float], *, logarithmic: bool = False, turned: bool = False) -> Axis:
        """An axis on which all of ``values`` (at least one) are seen."""
        low, high = min(values), max(values)
        if logarithmic and low > 0:
            return cls(title, low / 1.3, high * 1.25, True, turned)
        margin = max(0.08 * (high - low), 0.01 * abs(high), 1e-9)
        return cls(title, low - margin, high + margin, False, turned)

    def place(self, value: float) -> float:
        """Where ``value`` is, in [0, 1]."""
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = math.log(max(value, 1e-300)), math.log(low), math.log(high)
        place = (value - low) / (high - low)
        return 1 - place if self.turned else place

    @property
    def ticks(self) -> list[float]:
        """Round numbers on it."""
        if self.logarithmic:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1, 3) if self.high / self.low > 100 else (1, 2, 5)
            return [s * 10.0**d for d in decades for s in steps if self.low <= s * 10.0**d <= self.high]
        rough = (self.high - self.low) / 6
        unit = 10.0 ** math.floor(math.log10(rough))
        step = unit * min((1, 2, 2.5, 5, 10), key=lambda factor: abs(factor * unit - rough))
        return [index * step for index in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]

    def label(self, value: float) -> str:
        """A tick for people: ``0.85``, ``30k``."""
        for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= limit and self.logarithmic:
                return f"{value / limit:g}{unit}"
        return f"{value:.6g}"


@dataclass(frozen=True, slots=True)
class Plane:
    """Two axes on a picture of ``WIDTH`` by ``HEIGHT``."""

    x: Axis
    y: Axis

    def across(self, value: float) -> float:
        """Pixels from the left."""
        return LEFT + (WIDTH - LEFT - RIGHT) * self.x.place(value)

    def down(self, value: float) -> float:
        """Pixels from the top."""
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - self.y.place(value))

    def axes(self) -> Iterator[str]:
        """Grid, ticks and titles."""
        bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        for value in self.y.ticks:
            at = self.down(value)
            yield f'<path class="grid" d="M{LEFT:.1f} {at:.1f}H{right:.1f}"/>'
            yield text(LEFT - 8, at + 4, self.y.label(value), "end")
        for value in self.x.ticks:
            at = self.across(value)
            yield f'<path class="tick" d="M{at:.1f} {bottom:.1f}v4"/>'
            yield text(at, bottom + 18, self.x.label(value), "middle")
        yield text((LEFT + right) / 2, HEIGHT - 12, self.x.title, "middle")
        middle = (TOP + bottom) / 2
        yield f'<g transform="rotate(-90 16 {middle:.1f})">{text(16, middle, self.y.title, "middle")}</g>'


def text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    """A text element; ``kind`` is its class."""
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(words)}</text>'
