"""Coordinates of a search space: ordered sizes and continuous ranges, each mapped to the unit interval and back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from search_spaces.errors import ConfigurationError

DIGITS = 4
"""Significant digits of a continuous value in canonical form."""


def significant(value: float) -> float:
    """``value`` in canonical precision."""
    return float(f"{value:.{DIGITS - 1}e}")


@dataclass(frozen=True, slots=True)
class Ordinal:
    """One of a few sizes, in rising order.

    Attributes:
        name: Name in the space, e.g. ``layer 2 query+value rank``.
        values: The sizes; 0 means that nothing is inserted.
    """

    name: str
    values: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuses sizes that are not strictly rising whole numbers ≥ 0."""
        whole = all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in self.values)
        if not self.values or not whole or any(a >= b for a, b in zip(self.values, self.values[1:], strict=False)):
            raise ConfigurationError(f"{self.name}: values {list(self.values)}; expected rising whole numbers ≥ 0")

    def feature(self, value: float) -> float:
        """``value`` on a log scale in [0, 1] (0 stays 0)."""
        top = math.log2(1 + self.values[-1])
        return math.log2(1 + value) / top if top > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Continuous:
    """A range searched on a log scale.

    Attributes:
        name: Name in the space.
        low: Lower end, > 0.
        high: Upper end; equal to ``low`` for a fixed value.
    """

    name: str
    low: float
    high: float

    def __post_init__(self) -> None:
        """Refuses ranges that have no logarithm or are empty."""
        numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (self.low, self.high))
        if not numbers or not 0 < self.low <= self.high < math.inf:
            raise ConfigurationError(f"{self.name}: range {self.low!r} to {self.high!r}; expected 0 < low ≤ high")

    def feature(self, value: float) -> float:
        """``value`` on a log scale in [0, 1]; 0.5 where the range is one point."""
        if self.low == self.high:
            return 0.5
        return min(1.0, max(0.0, math.log(value / self.low) / math.log(self.high / self.low)))

    def at(self, unit: float) -> float:
        """The value at ``unit`` in [0, 1]; inverse of ``feature``."""
        return float(self.low * (self.high / self.low) ** min(1.0, max(0.0, unit)))

    def grid(self) -> Iterator[float]:
        """Every value of the range in canonical precision, rising."""
        value, last = significant(self.low), significant(self.high)
        while value <= last:
            yield value
            value = significant(value + 10.0 ** (math.floor(math.log10(value)) - DIGITS + 1))
