"""Where the names of points stand beside them: they cover neither each other, nor points, the front's edge or levels.

Greedy, from left to right: of the places around a point the first that covers least. The width of a page is not known
here; ``WIDTH`` is that of a narrow one, on a wider one there is more room.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import pandas as pd

from dashboard.figures.vega import Spec

WIDTH = 340
"""Pixels of the plot, at least."""

_FRAME = 75
"""Pixels of a figure's height that are legend and axis."""

_LETTER, _LINE = 5.6, 12.0
"""Width of a letter and height of a line, in pixels."""

_POINT = 7.0
"""Half the width of a point."""


class Place(NamedTuple):
    """How a text stands to its point: horizontal alignment, pixels to the right, pixels down."""

    align: str
    dx: float
    dy: float


_PLACES = tuple(
    Place(*place)
    for place in [
        ("center", 0, 16),
        ("center", 0, -15),
        ("left", 10, 0),
        ("right", -10, 0),
        ("left", 7, 13),
        ("right", -7, 13),
        ("left", 7, -12),
        ("right", -7, -12),
        ("center", 0, 29),
        ("center", 0, -28),
    ]
)


class _Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def shared(self, other: _Box) -> float:
        """Area of what both cover."""
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, across) * max(0.0, down)

    def outside(self, width: float, height: float) -> float:
        """Area, about, beyond the edges of the plot."""
        beyond = max(0.0, -self.left) + max(0.0, self.right - width)
        return beyond * _LINE + (max(0.0, -self.top) + max(0.0, self.bottom - height)) * (self.right - self.left)


LEVEL = Place("right", -6, -8)
"""How the name of a level stands to the right end of its line."""


def placed(
    labels: pd.DataFrame,
    points: pd.DataFrame,
    edge: pd.DataFrame,
    levels: pd.DataFrame,
    x: Spec,
    y: Spec,
    height: int,
) -> pd.DataFrame:
    """``labels`` with the columns ``align``, ``dx`` and ``dy``.

    Args:
        labels: Columns x, y and label.
        points: Columns x and y of all that is drawn.
        edge: Columns x and y of the corners of the front's edge, from left to right.
        levels: Columns y and text of the lines across the plot, named at their right ends.
        x: Encoding of the axis across, with its scale.
        y: Encoding of the axis upwards.
        height: Of the figure, in pixels.
    """
    tall = height - _FRAME
    across, down = _pixels(labels["x"], x, WIDTH), [tall - up for up in _pixels(labels["y"], y, tall)]
    taken = [_around(*at) for at in zip(*_both(points, x, y, tall), strict=True)]
    taken += [_around(*at, half=1.5) for at in _along(list(zip(*_both(edge, x, y, tall), strict=True)))]
    if len(levels):
        heights = [tall - up for up in _pixels(levels["y"], y, tall)]
        taken += [
            _text(WIDTH, at, _LETTER * len(text), LEVEL) for at, text in zip(heights, levels["text"], strict=True)
        ]
    found: dict[int, Place] = {}
    for index in sorted(range(len(labels)), key=lambda index: across[index]):
        wide = _LETTER * len(labels["label"].iloc[index])
        boxes = [_text(across[index], down[index], wide, place) for place in _PLACES]
        costs = [sum(map(box.shared, taken)) + box.outside(WIDTH, tall) for box in boxes]
        best = costs.index(min(costs))
        found[index] = _PLACES[best]
        taken.append(boxes[best])
    places = [found[index] for index in range(len(labels))]
    return labels.assign(**{name: [getattr(place, name) for place in places] for name in Place._fields})


def _both(table: pd.DataFrame, x: Spec, y: Spec, tall: float) -> tuple[list[float], list[float]]:
    return _pixels(table["x"], x, WIDTH), [tall - up for up in _pixels(table["y"], y, tall)]


def _pixels(values: pd.Series[float], axis: Spec, length: float) -> list[float]:
    """Distance of the values from the lower end of an axis of so many pixels."""
    scale = axis["scale"]
    convert = math.log if scale["type"] == "log" else float
    low, high = map(convert, scale["domain"])
    shares = [(convert(max(value, scale["domain"][0])) - low) / (high - low) for value in values]
    return [length * (1 - share if scale["reverse"] else share) for share in shares]


def _around(across: float, down: float, half: float = _POINT) -> _Box:
    return _Box(across - half, down - half, across + half, down + half)


def _text(across: float, down: float, wide: float, place: Place) -> _Box:
    share = {"left": 0.0, "center": 0.5, "right": 1.0}[place.align]
    left, middle = across + place.dx - share * wide, down + place.dy
    return _Box(left, middle - _LINE / 2, left + wide, middle + _LINE / 2)


def _along(corners: Sequence[tuple[float, float]], every: float = 6.0) -> Iterator[tuple[float, float]]:
    """Points along a line of steps: first across, then up or down."""
    for (left, down), (right, after) in pairwise(corners):
        steps = max(1, round(abs(right - left) / every))
        yield from ((left + (right - left) * step / steps, down) for step in range(steps))
        steps = max(1, round(abs(after - down) / every))
        yield from ((right, down + (after - down) * step / steps) for step in range(steps))
