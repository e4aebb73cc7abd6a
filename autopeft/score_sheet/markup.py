"""The score sheet as an accessible HTML table: a fragment with its own style, no script; tooltips as titles.

Colours follow the ``color-scheme`` of the page that it stands in (CSS ``light-dark()``); text takes the page's colour.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from autopeft.score_sheet.grid import Cell, Grid, compact, lay_out
from autopeft.score_sheet.palette import DARK, LIGHT
from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration


def html_sheet(configuration: Configuration, backbone: Backbone, *, caption: str = "") -> str:
    """The score sheet as an HTML fragment.

    Args:
        configuration: What to show.
        backbone: What it is laid out on.
        caption: Caption of the table; a description of the cells where empty.

    Raises:
        ConfigurationError: If the configuration does not fit the backbone.
    """
    grid = lay_out(configuration, backbone)
    text = caption or "Rank by module and layer; hatched: not adapted"
    body = "".join([_head(grid), "<tbody>", *_rows(grid), "</tbody>", _foot(grid)])
    style = f"<style>{_style(grid.layer_count)}</style>"
    return (
        f'<div class="score-sheet" tabindex="0" role="region" aria-label="Score sheet">{style}'
        f"<table><caption>{escape(text)}</caption>{body}</table></div>"
    )


def _head(grid: Grid) -> str:
    layers = "".join(f'<th scope="col">{layer}</th>' for layer in range(grid.layer_count))
    name, total = '<th scope="col" class="name">layer</th>', '<th scope="col" class="sum">Σ rank</th>'
    return f"<thead><tr>{name}{layers}{total}</tr></thead>"


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
    return f'<td class="{kind}" title="{escape(cell.note)}">{cell.text}</td>'


def _foot(grid: Grid) -> str:
    ranks = "".join(f"<td>{rank}</td>" for rank in grid.rank_by_layer)
    most = max(1, *grid.parameters)
    counts = "".join(
        f'<td class="strip" title="layer {layer}: {count:,} parameters">'
        f'<i style="height:{36 * count / most:.0f}px"></i>{compact(count)}</td>'
        for layer, count in enumerate(grid.parameters)
    )
    sums = f'<th scope="row" class="name">Σ rank</th>{ranks}<td class="sum">{sum(grid.rank_by_role):,}</td>'
    strip = f'<th scope="row" class="name">parameters</th>{counts}<td class="sum">{sum(grid.parameters):,}</td>'
    return f"<tfoot><tr>{sums}</tr><tr>{strip}</tr></tfoot>"


def _style(layer_count: int) -> str:
    shades = "".join(
        f".score-sheet .r{step}{{background:light-dark({light[0]},{dark[0]});color:light-dark({light[1]},{dark[1]})}}"
        for step, (light, dark) in enumerate(zip(LIGHT.shades, DARK.shades, strict=True))
    )
    fill, stripe = (f"light-dark({light},{dark})" for light, dark in zip(LIGHT.hatch, DARK.hatch, strict=True))
    muted = f"light-dark({LIGHT.muted},{DARK.muted})"
    bar = f"light-dark({LIGHT.bar},{DARK.bar})"
    page = f"light-dark({LIGHT.background},{DARK.background})"
    return (
        ".score-sheet{overflow-x:auto;color:inherit}"
        ".score-sheet table{border-collapse:separate;border-spacing:2px;font-size:.875rem;line-height:1.25;"
        "font-variant-numeric:tabular-nums;border:0;margin:0;width:auto}"
        f".score-sheet caption{{text-align:left;color:{muted};padding:0 0 .5rem 0}}"
        ".score-sheet th,.score-sheet td{border:0;padding:.3rem .2rem;text-align:center;"
        f"min-width:{3.6 if layer_count <= 12 else 2.1}rem;font-weight:400}}"
        f".score-sheet thead th,.score-sheet tfoot td{{color:{muted};font-size:.8125rem}}"
        ".score-sheet th.name{text-align:right;padding-right:.6rem;min-width:5.5rem;position:sticky;left:0;"
        f"background:var(--score-sheet-page,{page})}}"
        f".score-sheet thead th.name,.score-sheet tfoot th.name{{color:{muted}}}"
        ".score-sheet tbody td{border-radius:4px}"
        f".score-sheet .off{{color:{muted};background:repeating-linear-gradient(-45deg,{fill} 0 4px,{stripe} 4px 5px)}}"
        f".score-sheet .sum{{text-align:left;padding-left:.7rem;white-space:nowrap;color:{muted};min-width:8rem}}"
        f".score-sheet i{{display:inline-block;background:{bar};border-radius:2px}}"
        ".score-sheet .sum i{height:.75rem;margin-right:.4rem;vertical-align:-1px}"
        ".score-sheet .strip{vertical-align:bottom}"
        ".score-sheet .strip i{display:block;width:80%;margin:0 auto 2px auto}"
    ) + shades
