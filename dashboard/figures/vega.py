"""What all figures share: colours of both themes, axes that say which way is better, and the frame of a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from autopeft.study import PARAMETERS, Objective
from dashboard.board import KINDS, is_better_low, said

Spec = dict[str, Any]
"""A Vega-Lite specification; its ``datasets`` are data frames."""

HEIGHT = 430


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of a figure: one a kind in the order of ``KINDS``, the chosen trial, text, lines, the page behind."""

    kinds: tuple[str, str, str, str]
    chosen: str
    text: str
    line: str
    page: str

    def kind(self, name: str) -> str:
        """The colour of a kind of point."""
        return self.kinds[KINDS.index(name)]


LIGHT = Theme(("#0f766e", "#8592a6", "#6d4aa8", "#9a6700"), "#c2410c", "#4b5563", "#9aa2ae", "#ffffff")
DARK = Theme(("#2dd4bf", "#74839a", "#c4a7f5", "#e3b341"), "#fb923c", "#aeb6c2", "#6b7482", "#0e1117")


def theme_of(dark: bool) -> Theme:
    """The colours for a dark page or a light one."""
    return DARK if dark else LIGHT


def figure(
    layers: Sequence[Spec], tables: Mapping[str, pd.DataFrame], theme: Theme, height: int = HEIGHT, **more: Any
) -> Spec:
    """A figure of ``layers`` over each other, each of which names its table in ``data``.

    Args:
        layers: Vega-Lite layers, the lowest first; those without rows are left out.
        tables: What they draw.
        theme: Colours.
        height: In pixels.
        more: Further top-level keys.
    """
    drawn = [layer for layer in layers if len(tables[layer["data"]["name"]])]
    used = {layer["data"]["name"] for layer in drawn}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "layer": drawn,
        "datasets": {name: table for name, table in tables.items() if name in used},
        "height": height,
        "width": "container",
        "config": {
            "view": {"stroke": None},
            "axis": {
                "labelColor": theme.text,
                "titleColor": theme.text,
                "titleFontWeight": "normal",
                "gridColor": theme.line,
                "gridOpacity": 0.35,
                "domainColor": theme.line,
                "tickColor": theme.line,
            },
            "legend": {
                "labelColor": theme.text,
                "titleColor": theme.text,
                "orient": "top",
                "titleFontWeight": "normal",
                "symbolFillColor": theme.text,
            },
        },
        **more,
    }


def mark(table: str, kind: str, encoding: Mapping[str, Any], **style: Any) -> Spec:
    """One layer."""
    return {"data": {"name": table}, "mark": {"type": kind, **style}, "encoding": dict(encoding)}


def field(name: str, kind: str = "quantitative", **more: Any) -> Spec:
    """A column of the layer's table."""
    return {"field": name, "type": kind, **more}


def tooltip(name: str, title: str, form: str | None = None, kind: str = "quantitative") -> Spec:
    """A line of a tooltip."""
    return field(name, kind, title=title, **({"format": form} if form else {}))


def is_logarithmic(objective: Objective, values: pd.Series[float]) -> bool:
    """Whether an objective is drawn on a log scale: parameters always, other costs where they span a decade."""
    if values.empty or float(values.min()) <= 0:
        return False
    spans = float(values.max()) / float(values.min()) >= 10
    return objective.name == PARAMETERS or (is_better_low(objective) and spans)


def objective_axis(objective: Objective, values: pd.Series[float], column: str, *, vertical: bool) -> Spec:
    """The axis of an objective; up and left is better, whatever its direction.

    Args:
        objective: What is drawn.
        values: All that has to be seen, at least one.
        column: Name of the column.
        vertical: For the y axis.
    """
    low, high, log = float(values.min()), float(values.max()), is_logarithmic(objective, values)
    if log:
        low, high = low / 1.3, high * 1.25
    else:
        margin = max(0.08 * (high - low), 0.01 * abs(high), 1e-9)
        low, high = low - margin, high + margin
    better = "lower" if is_better_low(objective) else "higher"
    # y grows upwards and x to the right: turn an axis whose better end would be down or right
    turned = is_better_low(objective) == vertical
    scale: Spec = {"type": "log" if log else "linear", "domain": [low, high], "nice": False, "zero": False}
    axis: Spec = {"format": "~s" if log else "~g", "grid": vertical, "tickCount": 6}
    if log:
        axis["values"] = log_ticks(low, high)
    place = "up" if vertical else "left"
    name, better = f"{said(objective.name)}{' (log scale)' if log else ''}", f"{better} is better: {place}"
    title = f"{name} · {better}" if vertical else [name, better]  # on one line, a narrow page would cut it
    return field(column, title=title, scale={**scale, "reverse": turned}, axis=axis)


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between ``low`` and ``high`` > 0: 1, 3 a decade, or 1, 2, 5 where there are few decades."""
    steps = (1, 3) if high / low > 100 else (1, 2, 5)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
