"""The score sheet as an accessible HTML table: a fragment with its own style, no script; tooltips as titles.

Colours follow the ``color-scheme`` of the page that it stands in (CSS ``light-dark()``); text takes the page's colour.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from autopeft.score_sheet.grid import Cell, Grid, compact, lay_out
from autopeft.score_sheet.palette import DARK, LIGHT
from autopeft.score_sheet.strips import Strip
from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration

WIDEST_WITH_NUMBERS = 48
"""Layers up to which the numbers are seen; beyond, cells are narrow, and numbers stay for tooltips and readers."""


def html_sheet(
    configuration: Configuration, backbone: Backbone, *, caption: str = "", details: Mapping[str, Any] | None = None
) -> str:
    """The score sheet as an HTML fragment.

    Args:
        configuration: What to show.
        backbone: What it is laid out on.
        caption: Caption of the table; a description of the cells where empty.
        details: What the trial learned (``Measurement.details``): shown as strips above the cells.

    Raises:
        ConfigurationError: If the configuration does not fit the backbone.
    """
    grid = lay_out(configuration, backbone, details)
    text = caption or "Rank by module and layer; hatched: not adapted"
    above = f"<tbody class='strips'>{''.join(_strip(strip) for strip in grid.strips)}</tbody>" if grid.strips else ""
    body = "".join([_head(grid), above, "<tbody>", *_rows(grid), "</tbody>", _foot(grid)])
    return framed(body, text, "Score sheet", grid.layer_count)


def framed(body: str, caption: str, label: str, layer_count: int) -> str:
    """A table of layers with its caption and its style, in a region that scrolls by keyboard.

    Args:
        body: Rows of the table, as HTML.
        caption: Plain text.
        label: Name of the region.
        layer_count: Columns; decides how wide they are.
    """
    return (
        f'<div class="score-sheet {density(layer_count)}" tabindex="0" role="region" aria-label="{escape(label)}">'
        f"<style>{style()}</style><table><caption>{escape(caption)}</caption>{body}</table></div>"
    )


def density(layer_count: int) -> str:
    """Name of the style that fits so many columns."""
    return (
        "wide"
        if layer_count <= 12
        else "close"
        if layer_count <= 28
        else ("narrow" if layer_count <= WIDEST_WITH_NUMBERS else "bare")
    )


def heading(layer_count: int, *last: str) -> str:
    """The row of layer numbers, and the headings after it."""
    every = 1 if layer_count <= WIDEST_WITH_NUMBERS else 4
    layers = "".join(
        f'<th scope="col">{layer if layer % every == 0 else f"<s>{layer}</s>"}</th>' for layer in range(layer_count)
    )
    ends = "".join(f'<th scope="col" class="sum">{escape(text)}</th>' for text in last)
    return f'<thead><tr><th scope="col" class="name">layer</th>{layers}{ends}</tr></thead>'


def _head(grid: Grid) -> str:
    return heading(grid.layer_count, "Σ rank")


def _strip(strip: Strip) -> str:
    cells = []
    for layer, (value, height) in enumerate(zip(strip.values, strip.heights, strict=True)):
        said = "" if value is None else f"{value:.3g}"
        drawn = (
            f"<b>{'●' * min(8, int(value or 0))}</b>"
            if strip.is_count
            else (f'<i style="height:{30 * height:.0f}px"></i>' if value is not None else "")
        )
        cells.append(f'<td class="learned" title="{escape(strip.note(layer))}">{drawn}<s>{said}</s></td>')
    return f'<tr><th scope="row" class="name">{escape(strip.name)}</th>{"".join(cells)}<td></td></tr>'


def _rows(grid: Grid) -> Iterator[str]:
    most = max(1, *grid.rank_by_role)
    for role, cells, total in zip(grid.roles, grid.rows, grid.rank_by_role, strict=True):
        bar = f'<i style="width:{64 * total / most:.0f}px"></i>' if total else ""
        yield f'<tr><th scope="row" class="name">{escape(role)}</th>'
        yield from (_cell(cell) for cell in cells)
        yield f'<td class="sum">{bar}{total:,}</td></tr>'


def _cell(cell: Cell) -> str:
    adapted = f"r{cell.shade}" if cell.rank else "off"
    kind = "none" if cell.rank is None else adapted
    return f'<td class="{kind}" title="{escape(cell.note)}"><span>{cell.text}</span></td>'


def _foot(grid: Grid) -> str:
    ranks = "".join(f"<td><span>{rank}</span></td>" for rank in grid.rank_by_layer)
    most = max(1, *grid.parameters)
    counts = "".join(
        f'<td class="strip" title="layer {layer}: {count:,} parameters">'
        f'<i style="height:{36 * count / most:.0f}px"></i><span>{compact(count)}</span></td>'
        for layer, count in enumerate(grid.parameters)
    )
    sums = f'<th scope="row" class="name">Σ rank</th>{ranks}<td class="sum">{sum(grid.rank_by_role):,}</td>'
    strip = f'<th scope="row" class="name">parameters</th>{counts}<td class="sum">{sum(grid.parameters):,}</td>'
    return f"<tfoot><tr>{sums}</tr><tr>{strip}</tr></tfoot>"


def style() -> str:
    """CSS of every table of layers."""
    shades = "".join(
        f".score-sheet .r{step}{{background:light-dark({light[0]},{dark[0]});color:light-dark({light[1]},{dark[1]})}}"
        for step, (light, dark) in enumerate(zip(LIGHT.shades, DARK.shades, strict=True))
    )
    return _LAYOUT + _colours() + shades


_LAYOUT = (
    ".score-sheet{overflow-x:auto;color:inherit}"
    ".score-sheet table{border-collapse:separate;border-spacing:2px;font-size:.875rem;line-height:1.25;"
    "font-variant-numeric:tabular-nums;border:0;margin:0;width:auto}"
    ".score-sheet caption{text-align:left;padding:0 0 .5rem 0;white-space:nowrap}"
    ".score-sheet th,.score-sheet td{border:0;padding:.3rem .2rem;text-align:center;font-weight:400}"
    ".score-sheet.wide td,.score-sheet.wide th{min-width:3.6rem}"
    ".score-sheet.close td,.score-sheet.close th{min-width:2.1rem}"
    ".score-sheet.narrow td,.score-sheet.narrow th{min-width:1.5rem;padding:.3rem 0;font-size:.75rem}"
    ".score-sheet.bare table{border-spacing:1px}"
    ".score-sheet.bare td,.score-sheet.bare th{min-width:.7rem;padding:.3rem 0;font-size:.6875rem}"
    ".score-sheet.bare td:not(.sum) span,.score-sheet s{position:absolute;width:1px;height:1px;overflow:hidden;"
    "clip-path:inset(50%);white-space:nowrap}"
    ".score-sheet.bare thead th{white-space:nowrap;max-width:.7rem}"
    ".score-sheet thead th,.score-sheet tfoot td{font-size:.8125rem}"
    ".score-sheet th.name{text-align:right;padding-right:.6rem;min-width:5.5rem;max-width:none;position:sticky;left:0;"
    "font-size:.875rem;white-space:nowrap;z-index:1}"
    ".score-sheet tbody td{border-radius:4px;height:1.75rem;position:relative}"
    ".score-sheet.bare tbody td{border-radius:2px}"
    ".score-sheet .sum{text-align:left;padding-left:.7rem;white-space:nowrap;min-width:8rem;max-width:none;"
    "font-size:.8125rem}"
    ".score-sheet i{display:inline-block;border-radius:2px}"
    ".score-sheet .sum i{height:.75rem;margin-right:.4rem;vertical-align:-1px}"
    ".score-sheet .strip,.score-sheet .learned{vertical-align:bottom}"
    ".score-sheet .strip i,.score-sheet .learned i{display:block;width:80%;margin:0 auto 2px auto}"
    ".score-sheet .learned b{font-size:.5rem;font-weight:400;letter-spacing:1px;line-height:1;display:block;"
    "overflow-wrap:anywhere}"
)


def _colours() -> str:
    fill, stripe = (f"light-dark({light},{dark})" for light, dark in zip(LIGHT.hatch, DARK.hatch, strict=True))
    muted = f"light-dark({LIGHT.muted},{DARK.muted})"
    bar = f"light-dark({LIGHT.bar},{DARK.bar})"
    page = f"light-dark({LIGHT.background},{DARK.background})"
    learned = f"light-dark({LIGHT.learned},{DARK.learned})"
    return (
        f".score-sheet caption,.score-sheet thead th,.score-sheet tfoot td,.score-sheet .sum{{color:{muted}}}"
        f".score-sheet th.name{{background:var(--score-sheet-page,{page})}}"
        f".score-sheet thead th.name,.score-sheet tfoot th.name,.score-sheet .strips th.name{{color:{muted}}}"
        f".score-sheet .off{{color:{muted};background:repeating-linear-gradient(-45deg,{fill} 0 4px,{stripe} 4px 5px)}}"
        f".score-sheet i{{background:{bar}}}"
        f".score-sheet .learned i{{background:{learned}}}"
        f".score-sheet .learned b{{color:{muted}}}"
    )
