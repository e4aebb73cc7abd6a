"""Strips beside the cells of a score sheet: what was learned of each layer, and how many experts stand in it.

``Measurement.details`` holds one key a technique. What is not a value a layer is no strip, and is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search_spaces.configuration import Configuration

LEARNED = {"importance": "importance", "selection": "mean gate", "routing": "router entropy"}
"""Keys of a measurement's details that can be a strip, with the names of the strips."""

_PARTS = ("layers", "by_layer", "scores", "importance", "selection", "load", "entropy", "final")
"""Where a value a layer may stand inside of such a key."""


@dataclass(frozen=True, slots=True)
class Strip:
    """One value a layer.

    Attributes:
        name: For people.
        values: Lowest layer first; None where there is none.
        is_count: Whether the values are small whole numbers, shown as dots.
    """

    name: str
    values: tuple[float | None, ...]
    is_count: bool = False

    @property
    def heights(self) -> tuple[float, ...]:
        """Bars in [0, 1]; the lowest value is 0 where any is below 0."""
        known = [value for value in self.values if value is not None]
        low = min([0.0, *known])
        span = max([0.0, *known]) - low
        return tuple(0.0 if value is None or span == 0 else (value - low) / span for value in self.values)

    def note(self, layer: int) -> str:
        """The value of a layer in words."""
        value = self.values[layer]
        return f"layer {layer}: {self.name} {'–' if value is None else f'{value:.4g}'}"


def strips(configuration: Configuration, details: Mapping[str, Any] | None = None) -> tuple[Strip, ...]:
    """Every strip that ``configuration`` and what its trial learned have."""
    count = len(configuration.layers)
    found = [
        Strip(name, values)
        for key, name in LEARNED.items()
        if (values := by_layer((details or {}).get(key), count)) is not None
    ]
    experts = tuple(_experts(configuration, layer) for layer in range(count))
    if any(experts):
        found.append(Strip("experts", experts, is_count=True))
    return tuple(found)


def by_layer(data: Any, count: int) -> tuple[float | None, ...] | None:
    """The ``count`` values a layer that stand in ``data``; None where there are none.

    Understands a list of numbers (or of objects that hold one), an object by layer index, the last of several such
    lists over time, and any of these behind a well-known key.
    """
    if isinstance(data, Mapping):
        if data and all(str(key).isdigit() and int(key) < count for key in data):
            return tuple(_number(data.get(str(layer), data.get(layer))) for layer in range(count))
        parts = (by_layer(data.get(name), count) for name in _PARTS)
        return next((part for part in parts if part is not None), None)
    if not isinstance(data, Sequence) or isinstance(data, str) or not data:
        return None
    if len(data) == count and not isinstance(data[-1], list):
        values = tuple(_number(value) for value in data)
        return values if any(value is not None for value in values) else None
    return by_layer(data[-1], count) if isinstance(data[-1], list) else None


def _number(value: Any) -> float | None:
    if isinstance(value, Mapping):
        return next((found for part in _PARTS if (found := _number(value.get(part))) is not None), None)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _experts(configuration: Configuration, layer: int) -> int | None:
    sizes = [placement.method.to_json().get("experts") for placement in configuration.layers[layer].placements]
    counts = [int(size) for size in sizes if isinstance(size, int)]
    return max(counts) if counts else None
