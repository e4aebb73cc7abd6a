"""The score sheet for a terminal: as many layers side by side as the width allows. No colour, no escapes."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill
from typing import Any

from autopeft.score_sheet.grid import Grid, compact, lay_out
from autopeft.score_sheet.strips import Strip
from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration

WIDTH = 100
"""Columns of characters when none are given."""

_RANK, _PARAMETERS = "Σ rank", "parameters"


def text_sheet(
    configuration: Configuration, backbone: Backbone, width: int = WIDTH, details: Mapping[str, Any] | None = None
) -> str:
    """The score sheet as lines of at most ``width`` characters, where one layer fits that.

    Args:
        configuration: What to show.
        backbone: What it is laid out on.
        width: Characters a line; deep models continue in further blocks.
        details: What the trial learned (``Measurement.details``): shown as lines below the cells.

    Raises:
        ConfigurationError: If the configuration does not fit the backbone.
    """
    grid = lay_out(configuration, backbone, details)
    counts = [f"{count:,}" if grid.layer_count <= 12 else compact(count) for count in grid.parameters]
    learned = [text for strip in grid.strips for text in _values(strip)]
    cell = max(3, *(len(text) for text in (*counts, *learned))) + 1
    label = max(len(name) for name in (*grid.roles, *(strip.name for strip in grid.strips), _RANK, _PARAMETERS))
    side = max(len(_RANK), len(f"{sum(grid.parameters):,}")) + 2
    each = max(1, (width - label - side) // cell)
    blocks = [
        _block(grid, counts, range(start, min(start + each, grid.layer_count)), label, cell, side)
        for start in range(0, grid.layer_count, each)
    ]
    return "\n\n".join([*blocks, fill(grid.summary, width)])


def _block(grid: Grid, counts: list[str], layers: range, label: int, cell: int, side: int) -> str:
    last = layers.stop == grid.layer_count

    def line(name: str, cells: list[str], total: str) -> str:
        body = name.ljust(label) + "".join(text.rjust(cell) for text in cells)
        return (body + total.rjust(side) if last else body).rstrip()

    lines = [line("layer", [str(layer) for layer in layers], _RANK)]
    for role, row, total in zip(grid.roles, grid.rows, grid.rank_by_role, strict=True):
        lines.append(line(role, [row[layer].text for layer in layers], f"{total:,}"))
    lines.append(line(_RANK, [str(grid.rank_by_layer[layer]) for layer in layers], f"{sum(grid.rank_by_role):,}"))
    lines.append(line(_PARAMETERS, [counts[layer] for layer in layers], f"{sum(grid.parameters):,}"))
    lines += [line(strip.name, [_values(strip)[layer] for layer in layers], "") for strip in grid.strips]
    return "\n".join(lines)


def _values(strip: Strip) -> list[str]:
    """The values of a strip as they stand in its line; a dash for none."""
    return ["–" if value is None else f"{value:.0f}" if strip.is_count else f"{value:.2f}" for value in strip.values]
