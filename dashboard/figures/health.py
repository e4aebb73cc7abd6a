"""Does the surrogate predict: leave-one-out predictions beside observations, and how sure it is of them."""

from __future__ import annotations

import pandas as pd

from autopeft.health import Check
from autopeft.precision import Z95, possible
from dashboard.figures.vega import Spec, field, figure, mark, theme_of, tooltip


def prediction_chart(check: Check, name: str, dark: bool = False) -> Spec:
    """Predicted against observed values with 95 % intervals; on the line they are equal."""
    theme = theme_of(dark)
    table = pd.DataFrame({"trial": check.numbers, "observed": check.observed, "predicted": check.predicted})
    ends = zip(check.predicted - Z95 * check.deviations, check.predicted + Z95 * check.deviations, strict=True)
    cut = [possible(name, (float(low), float(high))) for low, high in ends]
    table = table.assign(low=[low for low, _ in cut], high=[high for _, high in cut])
    corners = [float(table[["observed", "low"]].min().min()), float(table[["observed", "high"]].max().max())]
    line = pd.DataFrame({"observed": corners, "predicted": corners})
    axis = {"zero": False, "nice": True}
    x = field("observed", title=f"{name}, observed", scale=axis, axis={"grid": False})
    y = field("predicted", title="predicted from all other plans", scale=axis)
    shown = [
        tooltip("trial", "trial"),
        tooltip("observed", "observed", ".4f"),
        tooltip("predicted", "predicted", ".4f"),
    ]
    layers = [
        mark("line", "line", {"x": x, "y": y}, color=theme.line, strokeDash=[4, 4]),
        mark(
            "plans",
            "rule",
            {"x": x, "y": field("low", title=y["title"]), "y2": {"field": "high"}},
            color=theme.kinds[1],
            opacity=0.45,
        ),
        mark(
            "plans",
            "point",
            {"x": x, "y": y, "tooltip": shown},
            filled=True,
            color=theme.kinds[0],
            size=45,
            opacity=0.9,
        ),
    ]
    return figure(layers, {"plans": table, "line": line}, theme, 330)


def calibration_chart(check: Check, dark: bool = False) -> Spec:
    """Share of observations below each quantile of their predictions; on the line the surrogate is calibrated."""
    theme = theme_of(dark)
    table = pd.DataFrame(check.calibration, columns=["expected", "observed"])
    line = pd.DataFrame({"expected": [0.0, 1.0], "observed": [0.0, 1.0]})
    scale = {"domain": [0, 1]}
    x = field("expected", title="quantile of the prediction", scale=scale, axis={"grid": False, "format": "~%"})
    y = field("observed", title="observations below it", scale=scale, axis={"format": "~%"})
    shown = [tooltip("expected", "quantile", "~%"), tooltip("observed", "observations below", ".0%")]
    layers = [
        mark("line", "line", {"x": x, "y": y}, color=theme.line, strokeDash=[4, 4]),
        mark(
            "deciles", "line", {"x": x, "y": y, "tooltip": shown}, color=theme.kinds[0], point={"color": theme.kinds[0]}
        ),
    ]
    return figure(layers, {"deciles": table, "line": line}, theme, 330)
