"""What a score sheet shows, as values: a grid of cells with its sums. The three renderings differ only in form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration
from search_spaces.cost import parameters_by_layer

STEPS = 7
"""Shades of the rank scale: 1, 2, 4, … 64 and above."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One module of one layer.

    Attributes:
        rank: LoRA rank; 0 where nothing is inserted, None where the layer has no such module.
        note: One line that says it in words.
    """

    rank: int | None
    note: str

    @property
    def text(self) -> str:
        """The rank; a middle dot where nothing is inserted; nothing where there is no module."""
        if self.rank is None:
            return ""
        return str(self.rank) if self.rank else "·"

    @property
    def shade(self) -> int:
        """Step of the rank scale, 0 to ``STEPS`` - 1, by log2 of the rank (which must be at least 1)."""
        return min(STEPS - 1, int(math.log2(self.rank or 1)))


@dataclass(frozen=True)
class Grid:
    """A configuration laid out on a backbone.

    Attributes:
        roles: Rows, in the order in which modules are shown.
        rows: Cells of each role, one a layer, lowest layer first.
        parameters: Trained parameters of each layer.
        backbone_parameters: Denominator of the fraction.
        learning_rate: Of the configuration.
    """

    roles: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    parameters: tuple[int, ...]
    backbone_parameters: int
    learning_rate: float

    @property
    def layer_count(self) -> int:
        """Number of columns."""
        return len(self.parameters)

    @cached_property
    def rank_by_layer(self) -> tuple[int, ...]:
        """Sum of the ranks of each column."""
        return tuple(sum(cell.rank or 0 for cell in column) for column in zip(*self.rows, strict=True))

    @cached_property
    def rank_by_role(self) -> tuple[int, ...]:
        """Sum of the ranks of each row."""
        return tuple(sum(cell.rank or 0 for cell in row) for row in self.rows)

    @property
    def summary(self) -> str:
        """Sum of ranks, parameters, fraction and learning rate in one line."""
        total = sum(self.parameters)
        return (
            f"Σ rank {sum(self.rank_by_role):,} · {total:,} trainable parameters · "
            f"{percent(total / self.backbone_parameters)} of {self.backbone_parameters:,} · "
            f"learning rate {self.learning_rate:.3g}"
        )


def lay_out(configuration: Configuration, backbone: Backbone) -> Grid:
    """The grid of ``configuration`` on ``backbone``.

    Raises:
        ConfigurationError: If the configuration does not fit the backbone.
    """
    parameters = parameters_by_layer(configuration, backbone)
    rows = tuple(
        tuple(_cell(configuration, backbone, layer, role) for layer in range(backbone.layer_count))
        for role in backbone.roles
    )
    rate = configuration.training.learning_rate
    return Grid(backbone.roles, rows, parameters, backbone.parameter_count, rate)


def _cell(configuration: Configuration, backbone: Backbone, layer: int, role: str) -> Cell:
    module = next((module for module in backbone.layers[layer] if module.role == role), None)
    if module is None:
        return Cell(None, f"layer {layer} has no {role}")
    method = configuration.layers[layer].at(role, "lora")
    if method is None:
        return Cell(0, f"layer {layer} {role}: not adapted")
    count = method.parameter_count(module)
    return Cell(
        method.rank, f"layer {layer} {role}: LoRA rank {method.rank}, alpha {method.alpha:g}, {count:,} parameters"
    )


def compact(number: float) -> str:
    """A count in at most five characters: ``512``, ``9.2k``, ``113k``, ``1.2M``."""
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= limit * 0.9995:
            scaled = number / limit
            return f"{scaled:.0f}{unit}" if scaled >= 99.95 else f"{scaled:.1f}{unit}"
    return f"{number:.0f}"


def percent(fraction: float) -> str:
    """A fraction in percent with two significant digits at least: ``0.27 %``, ``0.0034 %``."""
    value = fraction * 100
    digits = 2 if value >= 0.1 or value == 0 else 1 - math.floor(math.log10(value))
    return f"{value:.{digits}f} %"
