"""The update schedule of IST (arXiv 2410.11772): which layers a step updates, and how their importance is learned.

At each step only ``update_fraction`` of the adapted layers get gradients, drawn by importance; every ``interval`` steps
the response of some layers is suppressed and the loss says how much they are missed. A schedule stands beside the table
of a configuration and changes neither what is inserted nor what is counted. Plain data: the loop is
``workers.importance``. Steps that are chosen by module or by rank are not covered; IST knows layers only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.dimensions import significant
from search_spaces.errors import ConfigurationError
from search_spaces.sizes import require_whole

MOST_STEP_SIZE = 1000.0


@dataclass(frozen=True, slots=True)
class UpdateSchedule:
    """How IST goes about one run; the defaults are those of the authors' code.

    Canonical: where nothing is learned (step size 0: layers are drawn uniformly, the control "random sparse tuning"),
    the fields that only learning reads stand at their defaults.

    Attributes:
        update_fraction: Share of the adapted layers that one step updates, in (0, 1]; at least one layer.
        suppressed_fraction: Share of them whose response a probe scales down, in (0, 1).
        suppression_factor: What it is multiplied by, in [0, 1]; 0 switches the layer's adapters off.
        interval: Optimiser steps between two probes.
        candidates: Sets of suppressed layers that one probe compares, at least 2.
        step_size: How far one probe moves the importance; 0 learns nothing.
    """

    update_fraction: float = 0.25
    suppressed_fraction: float = 0.5
    suppression_factor: float = 0.25
    interval: int = 10
    candidates: int = 3
    step_size: float = 10.0

    def __post_init__(self) -> None:
        """Rounds to the canonical precision and refuses what is no schedule."""
        self._round("update_fraction", "a number in (0, 1]", lambda value: 0 < value <= 1)
        self._round("suppressed_fraction", "a number in (0, 1)", lambda value: 0 < value < 1)
        self._round("suppression_factor", "a number in [0, 1]", lambda value: 0 <= value <= 1)
        self._round("step_size", f"a number in [0, {MOST_STEP_SIZE:g}]", lambda value: 0 <= value <= MOST_STEP_SIZE)
        require_whole(self.interval, "update schedule, interval")
        require_whole(self.candidates, "update schedule, candidates", 2)
        if not self.learns:
            for name in ("suppressed_fraction", "suppression_factor", "interval", "candidates"):
                object.__setattr__(self, name, type(self).__dataclass_fields__[name].default)

    def _round(self, name: str, expected: str, holds: Callable[[float], bool]) -> None:
        value = getattr(self, name)
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not holds(value):
            raise ConfigurationError(f"update schedule, {name} {value!r}: expected {expected}")
        object.__setattr__(self, name, significant(float(value)))

    @property
    def learns(self) -> bool:
        """Whether importance is learned; if not, layers are drawn uniformly."""
        return self.step_size > 0

    @property
    def changes_nothing(self) -> bool:
        """Whether it is plain training: every layer at every step, and no probe."""
        return self.update_fraction == 1 and not self.learns

    def updated_count(self, adapted_layers: int) -> int:
        """Layers that one step updates, of so many with adapters: the nearest whole number, and at least 1."""
        return min(adapted_layers, max(1, round(self.update_fraction * adapted_layers)))

    def suppressed_count(self, adapted_layers: int) -> int:
        """Layers that a probe suppresses at a time, of so many with adapters; at least 1."""
        return min(adapted_layers, max(1, round(self.suppressed_fraction * adapted_layers)))

    def candidate_count(self, adapted_layers: int) -> int:
        """Different sets that one probe compares: ``candidates``, or all that there are."""
        return min(self.candidates, math.comb(adapted_layers, self.suppressed_count(adapted_layers)))

    def to_json(self) -> dict[str, Any]:
        """Every field as a plain value."""
        return {
            "update_fraction": self.update_fraction,
            "suppressed_fraction": self.suppressed_fraction,
            "suppression_factor": self.suppression_factor,
            "interval": self.interval,
            "candidates": self.candidates,
            "step_size": self.step_size,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> UpdateSchedule:
        """The schedule with these fields; those that are not given stand at their defaults.

        Raises:
            ConfigurationError: If a field is unknown or out of range.
        """
        known = tuple(cls.__dataclass_fields__)
        if not isinstance(data, Mapping) or not set(data) <= set(known):
            got = ", ".join(sorted(map(str, data))) if isinstance(data, Mapping) else type(data).__name__
            raise ConfigurationError(f"update schedule: it may have {', '.join(known)}, got {got}")
        return cls(**data)
