"""The score sheet as one standalone SVG, for exports and model cards. No script, no font file, nothing fetched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from autopeft.score_sheet.grid import Cell, Grid, compact, lay_out
from autopeft.score_sheet.palette import DARK, LIGHT, STEPS, Palette
from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration

_LEFT, _TOP, _ROW, _GAP = 104.0, 84.0, 32.0, 2.0
_BAR_WIDTH, _STRIP, _LEARNED = 104.0, 52.0, 44.0
_FONT = "system-ui, 'Noto Sans', 'Segoe UI', Helvetica, Arial, sans-serif"


def svg_sheet(
    configuration: Configuration,
    backbone: Backbone,
    *,
    title: str = "",
    dark: bool = False,
    details: Mapping[str, Any] | None = None,
) -> str:
    """The score sheet as an SVG document.

    Cells narrow with depth; where the numbers no longer fit, shades and tooltips stay.

    Args:
        configuration: What to show.
        backbone: What it is laid out on.
        title: Heading; the backbone's name where empty.
        dark: For a dark page.
        details: What the trial learned (``Measurement.details``): shown as strips below the cells.

    Raises:
        ConfigurationError: If the configuration does not fit the backbone.
    """
    grid = lay_out(configuration, backbone, details)
    return _Sheet(grid, title or backbone.name, DARK if dark else LIGHT).document()


class _Sheet:
    """Geometry and parts of one picture."""

    def __init__(self, grid: Grid, title: str, palette: Palette) -> None:
        self.grid = grid
        self.title = title
        self.palette = palette
        self.column = max(14.0, min(84.0, 1180.0 / grid.layer_count))
        self.has_digits = self.column >= 8 * max(len(cell.text) for row in grid.rows for cell in row) + 4
        self.right = _LEFT + self.column * grid.layer_count
        self.cells_bottom = _TOP + _ROW * len(grid.roles)
        self.bottom = self.cells_bottom + _LEARNED * len(grid.strips)
        self.width = max(self.right + 24 + _BAR_WIDTH + 64, 760.0)
        self.height = self.bottom + 26 + _STRIP + 78

    def document(self) -> str:
        """The whole SVG text."""
        palette, size = self.palette, f"{self.width:.0f} {self.height:.0f}"
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" width="{self.width:.0f}" '
            f'height="{self.height:.0f}" role="img" aria-labelledby="sheet-title sheet-summary" '
            f'font-family="{_FONT}" font-size="13">'
        )
        parts = [
            head,
            f'<title id="sheet-title">{escape(self.title)}</title>',
            f'<desc id="sheet-summary">{escape(self.grid.summary)}</desc>',
            self._hatch(),
            f'<rect width="100%" height="100%" fill="{palette.background}"/>',
            _text(_LEFT, 28, self.title, palette.text, size=17, weight=600),
            _text(_LEFT, 48, self.grid.summary, palette.muted),
            *self._columns(),
            *self._rows(),
            *self._learned(),
            *self._strip(),
            *self._legend(),
            "</svg>",
        ]
        return "\n".join(parts) + "\n"

    def _hatch(self) -> str:
        fill, stripe = self.palette.hatch
        return (
            '<defs><pattern id="not-adapted" width="6" height="6" patternUnits="userSpaceOnUse" '
            f'patternTransform="rotate(45)"><rect width="6" height="6" fill="{fill}"/>'
            f'<rect width="1.4" height="6" fill="{stripe}"/></pattern></defs>'
        )

    def _columns(self) -> Iterator[str]:
        every = next(step for step in (1, 2, 4, 8, 16) if step * self.column >= 20)
        for layer in range(0, self.grid.layer_count, every):
            centre = _LEFT + self.column * (layer + 0.5)
            yield _text(centre, _TOP - 8, str(layer), self.palette.muted, size=12, anchor="middle")
        yield _text(_LEFT - 12, _TOP - 8, "layer", self.palette.muted, size=12, anchor="end")
        yield _text(self.right + 16, _TOP - 8, "Σ rank", self.palette.muted, size=12)

    def _rows(self) -> Iterator[str]:
        most = max(1, *self.grid.rank_by_role)
        for row, (role, cells) in enumerate(zip(self.grid.roles, self.grid.rows, strict=True)):
            top, total = _TOP + _ROW * row, self.grid.rank_by_role[row]
            middle = top + _ROW / 2 + 4.5
            yield _text(_LEFT - 12, middle, role, self.palette.text, anchor="end")
            for layer, cell in enumerate(cells):
                yield from self._cell(cell, _LEFT + self.column * layer, top)
            length = _BAR_WIDTH * total / most
            if total:
                yield _rect(self.right + 16, top + 8, length, _ROW - 16, self.palette.bar)
            yield _text(self.right + 24 + length, middle, f"{total:,}", self.palette.muted)

    def _cell(self, cell: Cell, left: float, top: float) -> Iterator[str]:
        if cell.rank is None:
            return
        fill, ink = self.palette.shades[cell.shade] if cell.rank else ("url(#not-adapted)", "")
        yield (
            f"<g><title>{escape(cell.note)}</title>"
            f"{_rect(left + _GAP / 2, top + _GAP / 2, self.column - _GAP, _ROW - _GAP, fill)}"
        )
        if cell.rank and self.has_digits:
            yield _text(left + self.column / 2, top + _ROW / 2 + 4.5, cell.text, ink, anchor="middle")
        yield "</g>"

    def _learned(self) -> Iterator[str]:
        """What was learned of each layer as bars, experts as dots, a row a strip."""
        for row, strip in enumerate(self.grid.strips):
            base = self.cells_bottom + _LEARNED * (row + 1) - 4
            yield _text(_LEFT - 12, base - _LEARNED / 2 + 10, strip.name, self.palette.muted, anchor="end")
            for layer, height in enumerate(strip.heights):
                left = _LEFT + self.column * layer
                drawn = (
                    "".join(self._dots(int(strip.values[layer] or 0), left, base))
                    if strip.is_count
                    else _rect(left + 3, base - 32 * height, self.column - 6, 32 * height, self.palette.learned)
                )
                yield f"<g><title>{escape(strip.note(layer))}</title>{drawn}</g>"

    def _dots(self, count: int, left: float, base: float) -> Iterator[str]:
        each = max(1, min(4, int((self.column - 4) / 8)))
        for dot in range(min(count, 4 * each)):
            x, y = left + self.column / 2 + 8 * (dot % each - (min(count, each) - 1) / 2), base - 26 + 8 * (dot // each)
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{self.palette.muted}"/>'

    def _strip(self) -> Iterator[str]:
        """Parameters of each layer as bars on one base line."""
        base = self.bottom + 26 + _STRIP
        most = max(1, *self.grid.parameters)
        yield _text(_LEFT - 12, base - _STRIP / 2 + 4, "parameters", self.palette.muted, anchor="end")
        for layer, count in enumerate(self.grid.parameters):
            height = _STRIP * count / most
            left = _LEFT + self.column * layer
            bar = _rect(left + 3, base - height, self.column - 6, height, self.palette.bar) if count else ""
            yield f"<g><title>{escape(f'layer {layer}: {count:,} parameters')}</title>{bar}</g>"
            if count and self.column >= 40:
                text = compact(count)
                yield _text(
                    left + self.column / 2, base - height - 5, text, self.palette.muted, size=11, anchor="middle"
                )
        yield f'<path d="M{_LEFT:.1f} {base:.1f}H{self.right:.1f}" stroke="{self.palette.line}"/>'
        yield _text(self.right + 16, base - 2, f"{sum(self.grid.parameters):,}", self.palette.muted)

    def _legend(self) -> Iterator[str]:
        top = self.height - 44
        yield _text(_LEFT - 12, top + 13, "rank", self.palette.muted, anchor="end")
        for step in range(STEPS):
            left = _LEFT + 40 * step
            label = f"{2**step}{'+' if step == STEPS - 1 else ''}"
            yield _rect(left + 1, top, 38, 18, self.palette.shades[step][0])
            yield _text(left + 20, top + 34, label, self.palette.muted, size=12, anchor="middle")
        left = _LEFT + 40 * STEPS + 24
        yield _rect(left, top, 38, 18, "url(#not-adapted)")
        yield _text(left + 46, top + 13.5, "not adapted", self.palette.muted)


def _rect(x: float, y: float, width: float, height: float, fill: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="3" fill="{fill}"/>'


def _text(x: float, y: float, text: str, fill: str, *, size: int = 13, weight: int = 400, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{fill}" font-size="{size}" font-weight="{weight}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )
