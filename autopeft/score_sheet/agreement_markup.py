"""What a front agrees on as an accessible HTML table: share of members as shade, median size as number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from autopeft.agreement import Agreement
from autopeft.score_sheet.markup import framed, heading
from autopeft.score_sheet.palette import STEPS
from autopeft.score_sheet.strips import Strip


def html_agreement(found: Mapping[str, Sequence[Agreement]], members: int, strips: Sequence[Strip] = ()) -> str:
    """The table of ``found`` (by site, an agreement a layer) over ``members`` configurations, as an HTML fragment."""
    count = len(next(iter(found.values()), ()))
    rows = "".join(
        f'<tr><th scope="row" class="name">{escape(site)}</th>'
        f"{''.join(_cell(site, layer, one, members) for layer, one in enumerate(row))}{_mean(row)}</tr>"
        for site, row in found.items()
    )
    above = "".join(_strip(strip) for strip in strips)
    caption = f"Shade: share of {members} members that adapt the module; number: median size where they do"
    body = (
        f"{heading(count, 'mean share')}{f'<tbody class=strips>{above}</tbody>' if above else ''}<tbody>{rows}</tbody>"
    )
    return framed(body, caption, "What the front agrees on", count)


def _cell(site: str, layer: int, one: Agreement, members: int) -> str:
    said = f"layer {layer} {site}: {round(one.share * members)} of {members} members"
    if one.median is None:
        return f'<td class="off" title="{escape(said)}"><span>·</span></td>'
    step = min(STEPS - 1, int(one.share * STEPS))
    note = escape(f"{said}, median size {one.median:g}")
    return f'<td class="r{step}" title="{note}"><span>{one.median:g}</span></td>'


def _mean(row: Sequence[Agreement]) -> str:
    mean = sum(one.share for one in row) / len(row)
    return f'<td class="sum"><i style="width:{64 * mean:.0f}px"></i>{mean:.0%}</td>'


def _strip(strip: Strip) -> str:
    cells = "".join(
        f'<td class="learned" title="{escape(strip.note(layer))}"><i style="height:{30 * height:.0f}px"></i>'
        f"<s>{'' if value is None else f'{value:.3g}'}</s></td>"
        for layer, (value, height) in enumerate(zip(strip.values, strip.heights, strict=True))
    )
    return f'<tr><th scope="row" class="name">{escape(strip.name)}</th>{cells}<td></td></tr>'
