"""Figures of a study as Altair charts: functions of a snapshot, testable without Streamlit."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from autopeft.study import PARAMETERS, Trial
from dashboard.queries import Snapshot

SELECTION = "pick"
"""Name of the chart's selection of a trial."""

KINDS = ("front", "dominated", "control")
HEIGHT = 430

_SIZES = {"front": 120, "dominated": 55, "control": 150}
_DRAWN = ("dominated", "control", "front")
"""From below to above."""

_DIAMOND = "M0,-1L1,0L0,1L-1,0Z"
"""Vega's own is narrow."""


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of a figure: one a kind in the order of ``KINDS``, the chosen trial, text, lines, the page behind."""

    kinds: tuple[str, str, str]
    chosen: str
    text: str
    line: str
    page: str


LIGHT = Theme(("#0f766e", "#8592a6", "#6d4aa8"), "#c2410c", "#4b5563", "#9aa2ae", "#ffffff")
DARK = Theme(("#2dd4bf", "#74839a", "#c4a7f5"), "#fb923c", "#aeb6c2", "#6b7482", "#0e1117")


def points(snapshot: Snapshot) -> pd.DataFrame:
    """A row for each complete trial that trains an adapter: number, quality, cost, fraction, kind, label."""
    study = snapshot.study
    rows = [
        {
            "trial": trial.number,
            "quality": trial.values[study.metric],
            "cost": trial.values[PARAMETERS],
            "fraction": trial.values[PARAMETERS] / study.backbone.parameter_count,
            "kind": snapshot.kind(trial),
            "label": short_label(trial),
        }
        for trial in snapshot.complete
        if trial.values[PARAMETERS] > 0
    ]
    return pd.DataFrame(rows, columns=["trial", "quality", "cost", "fraction", "kind", "label"])


def table(snapshot: Snapshot, shown: str) -> pd.DataFrame:
    """Measured trials for people, best first.

    Args:
        snapshot: What to show.
        shown: ``Front``, ``Control`` or ``All``.
    """
    kinds = {"Front": ("front",), "Control": ("control",)}.get(shown, ("front", "control", "dominated", "head only"))
    trials = [trial for trial in snapshot.complete if snapshot.kind(trial) in kinds]
    metric = snapshot.study.metric
    rows = [
        {
            "trial": trial.number,
            "quality": trial.values[metric],
            "cost": int(trial.values[PARAMETERS]),
            "layers": [layer.extent for layer in trial.configuration.layers],
            "label": trial.label or snapshot.kind(trial),
        }
        for trial in sorted(trials, key=lambda trial: -trial.values[metric])
    ]
    frame = pd.DataFrame(rows, columns=["trial", "quality", "cost", "layers", "label"])
    return frame.drop(columns="label") if shown == "Front" else frame


def short_label(trial: Trial) -> str:
    """The label of a control trial, as short as a chart needs it: ``r=4 q+v``, ``r=1 all``."""
    label = (trial.label or "").removeprefix("LoRA ")
    return label.replace("query+value", "q+v").replace("all linear", "all")


def front_chart(snapshot: Snapshot, chosen: int | None = None, dark: bool = False) -> alt.LayerChart:
    """Quality against trainable parameters; up and left is better, every point can be picked.

    Args:
        snapshot: What to show.
        chosen: Number of the trial to mark, or None.
        dark: For a dark page.
    """
    theme = DARK if dark else LIGHT
    frame = points(snapshot)
    x, y = _axes(snapshot, frame)
    layers = [
        *_limits(snapshot, theme, x, y),
        _steps(snapshot, frame, theme, x, y),
        _marks(snapshot, frame, theme, x, y),
        *_labels(frame, theme, x, y),
        _ring(frame, chosen, theme, x, y),
    ]
    chart = alt.layer(*layers).properties(height=HEIGHT).configure_view(stroke=None)
    chart = chart.configure_axis(labelColor=theme.text, titleColor=theme.text, titleFontWeight="normal")
    return chart.configure_legend(labelColor=theme.text)


def describe(snapshot: Snapshot) -> str:
    """The front chart in words, for those who do not see it."""
    front, metric = snapshot.standing.front, snapshot.study.metric
    if not front:
        return f"{metric} against trainable parameters; no trial within the budget is complete yet"
    best, smallest = front[-1], front[0]
    return (
        f"{metric} against trainable parameters of {len(snapshot.complete)} trials; {len(front)} on the Pareto front, "
        f"from {smallest.values[metric]:.4f} with {smallest.values[PARAMETERS]:,.0f} parameters "
        f"to {best.values[metric]:.4f} with {best.values[PARAMETERS]:,.0f}"
    )


def _axes(snapshot: Snapshot, frame: pd.DataFrame) -> tuple[alt.X, alt.Y]:
    study, reference = snapshot.study, snapshot.standing.reference
    low, high = float(frame["cost"].min()) / 1.3, max(float(frame["cost"].max()), study.budget.parameters) * 1.15
    scores = [*frame["quality"], *([reference.values[study.metric]] if reference else [])]
    margin = max(0.08 * (max(scores) - min(scores)), 0.01)
    x = alt.X(
        "cost:Q",
        title="trainable parameters (log scale; further left is better)",
        scale=alt.Scale(type="log", domain=[low, high], nice=False),
        axis=alt.Axis(format="~s", values=log_ticks(low, high), grid=False),
    )
    y = alt.Y(
        "quality:Q",
        title=f"{study.metric} on validation (higher is better)",
        scale=alt.Scale(domain=[min(scores) - margin, max(scores) + margin], nice=False, zero=False),
        axis=alt.Axis(format="~g", tickCount=6),
    )
    return x, y


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between ``low`` and ``high`` > 0: 1, 3 a decade, or 1, 2, 5 where there are few decades."""
    steps = (1, 3) if high / low > 100 else (1, 2, 5)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]


def _limits(snapshot: Snapshot, theme: Theme, x: alt.X, y: alt.Y) -> Iterator[alt.Chart]:
    """The budget as a vertical line, the head alone as a horizontal one."""
    study, reference = snapshot.study, snapshot.standing.reference
    budget = pd.DataFrame([{"cost": study.budget.parameters, "text": f"budget {study.budget.parameters:,}"}])
    base = alt.Chart(budget).encode(x=x)
    style = {"color": theme.text, "align": "right", "dx": -6, "fontSize": 11}
    yield base.mark_rule(color=theme.line, strokeDash=[4, 4])
    yield base.mark_text(baseline="bottom", dy=-4, **style).encode(text="text:N", y=alt.value("height"))
    if reference is None:
        return
    score = reference.values[study.metric]
    row = {"quality": score, "cost": study.budget.parameters, "text": f"head only {score:.4f}"}
    head = alt.Chart(pd.DataFrame([row])).encode(y=y)
    yield head.mark_rule(color=theme.line, strokeDash=[2, 4])
    yield head.mark_text(dy=-8, **style).encode(text="text:N", x=x)


def _steps(snapshot: Snapshot, frame: pd.DataFrame, theme: Theme, x: alt.X, y: alt.Y) -> alt.Chart:
    """The edge of what the front dominates, up to the budget."""
    front = frame[frame["kind"] == "front"].sort_values("cost")[["cost", "quality"]]
    if len(front):
        edge = {"cost": float(snapshot.study.budget.parameters), "quality": float(front["quality"].iloc[-1])}
        front = pd.concat([front, pd.DataFrame([edge])])
    return alt.Chart(front).mark_line(interpolate="step-after", color=theme.kinds[0], strokeWidth=2).encode(x=x, y=y)


def _marks(snapshot: Snapshot, frame: pd.DataFrame, theme: Theme, x: alt.X, y: alt.Y) -> alt.Chart:
    kind = {"field": "kind", "type": "nominal", "title": None}
    frame = frame.assign(
        size=frame["kind"].map(_SIZES),
        opacity=frame["kind"].map({"dominated": 0.65}).fillna(1.0),
        words=[_words(row) for row in frame.to_dict("records")],
    ).sort_values("kind", key=lambda column: column.map(_DRAWN.index), kind="stable")
    legend = alt.Legend(orient="top", title=None, symbolSize=110, symbolOpacity=1)
    pick = alt.selection_point(name=SELECTION, fields=["trial"], toggle=False)
    return (
        alt.Chart(frame)
        .mark_point(filled=True, opacity=1, cursor="pointer")
        .encode(
            x=x,
            y=y,
            color=alt.Color(**kind, scale=alt.Scale(domain=KINDS, range=theme.kinds), legend=legend),
            shape=alt.Shape(**kind, scale=alt.Scale(domain=KINDS, range=["circle", "circle", _DIAMOND])),
            size=alt.Size("size:Q", scale=None, legend=None),
            opacity=alt.Opacity("opacity:Q", scale=None, legend=None),
            description=alt.Description("words:N"),
            tooltip=[
                alt.Tooltip("trial:N", title="trial"),
                alt.Tooltip("quality:Q", title=snapshot.study.metric, format=".4f"),
                alt.Tooltip("cost:Q", title="parameters", format=",d"),
                alt.Tooltip("fraction:Q", title="of the backbone", format=".3%"),
                alt.Tooltip("kind:N", title="kind"),
                alt.Tooltip("label:N", title="label"),
            ],
        )
        .add_params(pick)
    )


def _words(row: Mapping[Hashable, Any]) -> str:
    """A point as a screen reader says it."""
    kind = {"front": "on the front", "dominated": "dominated", "control": f"control {row['label']}"}[str(row["kind"])]
    return f"trial {row['trial']}: {row['quality']:.4f} with {row['cost']:,.0f} parameters, {kind}"


def _labels(frame: pd.DataFrame, theme: Theme, x: alt.X, y: alt.Y) -> Iterator[alt.Chart]:
    """Names of the control's points, each over a halo of the page's colour."""
    control = alt.Chart(frame[frame["kind"] == "control"]).encode(x=x, y=y, text="label:N")
    yield control.mark_text(
        dy=16, fontSize=11, stroke=theme.page, strokeWidth=2.5, opacity=0.8, tooltip=None, aria=False
    )
    yield control.mark_text(dy=16, fontSize=11, color=theme.kinds[2], tooltip=None, aria=False)


def _ring(frame: pd.DataFrame, chosen: int | None, theme: Theme, x: alt.X, y: alt.Y) -> alt.Chart:
    marked = frame[frame["trial"] == (-1 if chosen is None else chosen)]
    mark = alt.Chart(marked).mark_point(
        size=330, strokeWidth=3, color=theme.chosen, filled=False, opacity=1, tooltip=None, aria=False
    )
    return mark.encode(x=x, y=y)
