"""Two to four configurations side by side, cell by cell: values, text and an accessible HTML table (the diff map).

A difference is counted in doublings of the size (from nothing to rank 1 is one). With two configurations a cell says
which way it goes, in one of two hues that colour-blind people tell apart, with the sizes written out; with more, how
far apart they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from autopeft.errors import ConfigurationError
from autopeft.score_sheet.grid import Cell, Grid, lay_out
from autopeft.score_sheet.markup import framed, heading
from autopeft.score_sheet.palette import DARK, LIGHT
from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration

FEWEST, MOST = 2, 4
"""Configurations that are compared at once."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """One site of one layer in every configuration.

    Attributes:
        sizes: One a configuration; 0 where nothing is inserted, None where there is no such site.
        note: One line that says it in words.
    """

    sizes: tuple[int | None, ...]
    note: str

    @property
    def doublings(self) -> int:
        """Last less first of two, or largest less smallest of more."""
        steps = [0 if not size else 1 + int(math.log2(size)) for size in self.sizes]
        return steps[-1] - steps[0] if len(steps) == 2 else max(steps) - min(steps)

    @property
    def is_equal(self) -> bool:
        """Whether all have the same size."""
        return len(set(self.sizes)) == 1

    @property
    def text(self) -> str:
        """The sizes, written once where they are equal: ``4``, ``4→16``, ``4 8 ·``."""
        words = ["" if size is None else str(size) if size else "·" for size in self.sizes]
        if self.is_equal:
            return words[0]
        return "→".join(words) if len(words) == 2 else " ".join(words)


@dataclass(frozen=True, slots=True)
class ContrastMap:
    """Every site of every layer: ``rows`` by ``roles``, lowest layer first."""

    roles: tuple[str, ...]
    rows: tuple[tuple[Contrast, ...], ...]

    @property
    def differing(self) -> int:
        """Cells that differ."""
        return sum(not cell.is_equal for row in self.rows for cell in row)


def contrast_map(configurations: Mapping[str, Configuration], backbone: Backbone) -> ContrastMap:
    """The configurations, by name, cell by cell.

    Raises:
        ConfigurationError: If there are fewer than two or more than four.
    """
    if not FEWEST <= len(configurations) <= MOST:
        raise ConfigurationError(f"{len(configurations)} configurations: compare {FEWEST} to {MOST} at once")
    grids = {name: lay_out(configuration, backbone) for name, configuration in configurations.items()}
    roles = tuple(dict.fromkeys(role for grid in grids.values() for role in grid.roles))
    shown = tuple(role for role in roles if any(cell.rank for grid in grids.values() for cell in _row(grid, role)))
    rows = tuple(tuple(_contrast(grids, role, layer) for layer in range(backbone.layer_count)) for role in shown)
    return ContrastMap(shown, rows)


def _row(grid: Grid, role: str) -> Sequence[Cell]:
    return grid.rows[grid.roles.index(role)] if role in grid.roles else ()


def _contrast(grids: Mapping[str, Grid], role: str, layer: int) -> Contrast:
    sizes = tuple(row[layer].rank if (row := _row(grid, role)) else 0 for grid in grids.values())
    said = ", ".join(
        f"{name} {'no such module' if size is None else size or 'not adapted'}"
        for name, size in zip(grids, sizes, strict=True)
    )
    return Contrast(sizes, f"layer {layer} {role}: {said}")


def text_contrast(found: ContrastMap) -> str:
    """The differing cells as lines for a terminal."""
    if not found.differing:
        return "  every module of every layer has the same size"
    width = max(len(role) for role in found.roles)
    lines = []
    for role, row in zip(found.roles, found.rows, strict=True):
        cells = [f"{layer}: {cell.text}" for layer, cell in enumerate(row) if not cell.is_equal]
        if cells:
            lines.append(f"  {role.ljust(width)}  {'   '.join(cells)}")
    return "\n".join(lines)


def html_contrast(found: ContrastMap, names: Sequence[str]) -> str:
    """The diff map as an HTML fragment; ``names`` are those of the configurations, in their order."""
    count = len(found.rows[0]) if found.rows else 0
    pair = len(names) == 2
    caption = (
        f"{names[0]} → {names[1]}: blue cells are larger in {names[1]}, orange ones smaller; plain ones are equal"
        if pair
        else f"Sizes in {', '.join(names)}, in this order; the darker, the further apart; plain ones are equal"
    )
    body = "".join(
        f'<tr><th scope="row" class="name">{escape(role)}</th>{"".join(_cell(cell, pair) for cell in row)}</tr>'
        for role, row in zip(found.roles, found.rows, strict=True)
    )
    table = framed(f"{heading(count)}<tbody>{body}</tbody>", caption, "Diff map", count)
    return f"<div class='contrast'><style>{_STYLE}</style>{table}</div>"


def _cell(cell: Contrast, pair: bool) -> str:
    step = max(-3, min(3, cell.doublings)) if pair else min(3, cell.doublings)
    hue = "same" if cell.is_equal else f"{'more' if step > 0 or not pair else 'less'}{max(1, abs(step))}"
    return f'<td class="{hue}" title="{escape(cell.note)}"><span>{escape(cell.text)}</span></td>'


_MORE = (("#d6e6f7", "#173a5e"), ("#a9cdf0", "#1f5590"), ("#2a6db3", "#8cc2ff"))
_LESS = (("#fbe3cd", "#4d2f10"), ("#f6c08b", "#7a4711"), ("#a8500b", "#ffb570"))
_INKS = (("#12262b", "#ffffff"), ("#12262b", "#ffffff"), ("#ffffff", "#12262b"))


def _style() -> str:
    rules = [
        f".contrast .{name}{step}{{background:light-dark({fill[0]},{fill[1]});color:light-dark({ink[0]},{ink[1]})}}"
        for name, fills in (("more", _MORE), ("less", _LESS))
        for step, (fill, ink) in enumerate(zip(fills, _INKS, strict=True), 1)
    ]
    rules.append(f".contrast .same{{color:light-dark({LIGHT.muted},{DARK.muted})}}")
    return "".join(rules)


_STYLE = _style()
COLOURS = tuple((fill, ink) for fills in (_MORE, _LESS) for fill, ink in zip(fills, _INKS, strict=True))
"""((light fill, dark fill), (light text, dark text)) of every shade."""
