"""What a score sheet shows, as values: a grid of cells with its sums. The three renderings differ only in form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from autopeft.measurement import as_trained
from autopeft.score_sheet.palette import STEPS
from autopeft.score_sheet.strips import Strip, strips
from search_spaces.backbone import SITES, Backbone
from search_spaces.configuration import Configuration, LayerPlan, Placement
from search_spaces.cost import parameters_by_layer, trainable_parameters
from search_spaces.methods.lora import Lora


@dataclass(frozen=True, slots=True)
class Cell:
    """One site of one layer.

    Attributes:
        rank: LoRA rank or the other method's size; 0 where nothing is inserted, None where the layer has no such site.
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
        strips: What was learned of each layer, and the experts in it.
    """

    roles: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    parameters: tuple[int, ...]
    backbone_parameters: int
    learning_rate: float
    strips: tuple[Strip, ...] = ()

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


def lay_out(configuration: Configuration, backbone: Backbone, details: Mapping[str, Any] | None = None) -> Grid:
    """The grid of ``configuration`` on ``backbone``, with what its trial learned (``Measurement.details``).

    Of a trial that chose its modules, those that it kept.

    Raises:
        ConfigurationError: If the configuration does not fit the backbone.
    """
    configuration = as_trained(configuration, details)
    parameters = parameters_by_layer(configuration, backbone)
    kinds = _kinds(configuration, backbone)
    rows = tuple(
        tuple(_cell(configuration, backbone, layer, *kind) for layer in range(backbone.layer_count)) for kind in kinds
    )
    labels = tuple(site if method == Lora.name else f"{site} {method}" for site, method in kinds)
    rate = configuration.training.learning_rate
    return Grid(labels, rows, parameters, backbone.parameter_count, rate, strips(configuration, details))


def _kinds(configuration: Configuration, backbone: Backbone) -> list[tuple[str, str]]:
    """(site, method) of each row: LoRA at every module, unless there is none but others; then what else there is."""
    present = {(site, method.name) for _, site, method in configuration.placements()}
    others = sorted(
        (kind for kind in present if kind[1] != Lora.name), key=lambda kind: (SITES.index(kind[0]), kind[1])
    )
    plain = [(role, Lora.name) for role in backbone.roles]
    return others if others and len(others) == len(present) else [*plain, *others]


def _cell(configuration: Configuration, backbone: Backbone, layer: int, site: str, name: str) -> Cell:
    if site not in backbone.sites(layer):
        return Cell(None, f"layer {layer} has no {site}")
    method = configuration.layers[layer].at(site, name)
    if method is None:
        return Cell(
            0, f"layer {layer} {site}: no {name}" if name != Lora.name else f"layer {layer} {site}: not adapted"
        )
    sizes = ", ".join(f"{size} {_plain(value)}" for size, value in method.to_json().items())
    what = f"LoRA {sizes}" if name == Lora.name else f"{name} {sizes}".rstrip()
    alone = LayerPlan((Placement(site, method),))
    empty = LayerPlan()
    only = replace(configuration, layers=tuple(alone if i == layer else empty for i in range(backbone.layer_count)))
    count = trainable_parameters(only, backbone)
    return Cell(method.extent, f"layer {layer} {site}: {what}, {count:,} parameters")


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


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
