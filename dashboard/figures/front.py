"""The front: any two objectives as axes, a third as size, error bars, control and references labelled."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

import pandas as pd

from autopeft import pareto
from autopeft.picking import Candidate
from autopeft.precision import possible
from autopeft.study import PARAMETERS
from dashboard.board import KINDS, Board, is_better_low, said, shown_value
from dashboard.figures.labels import LEVEL, placed
from dashboard.figures.thinning import thinned
from dashboard.figures.vega import (
    HEIGHT,
    Spec,
    Theme,
    field,
    figure,
    is_logarithmic,
    mark,
    objective_axis,
    theme_of,
    tooltip,
)

SELECTION = "pick"
"""Name of the chart's selection of a trial."""

_SIZES = {"front": 120, "dominated": 45, "control": 150, "reference": 110}
_DRAWN = ("dominated", "reference", "control", "front")
_LABELLED = ("control", "reference")
_BARRED = ("reference", "control", "front")
"""From below to above."""

_DIAMOND = "M0,-1L1,0L0,1L-1,0Z"
"""Vega's own is narrow."""


@dataclass(frozen=True, slots=True)
class View:
    """What of a study is shown, and how.

    Attributes:
        x: Objective across.
        y: Objective up.
        size: Objective shown as size, or None.
        budget: Only trials of at most so many parameters; None for all.
    """

    x: str
    y: str
    size: str | None = None
    budget: int | None = None


@lru_cache(maxsize=32)
def shown_points(board: Board, view: View) -> pd.DataFrame:
    """The points of ``view``: those of the board within its budget, with the kinds that they have there."""
    points = board.points
    if view.budget is None or PARAMETERS not in points:
        return points
    within = points[points[PARAMETERS] <= view.budget]
    return board.as_members(within, board.standing_within(view.budget))


def front_chart(
    board: Board,
    view: View,
    candidates: Mapping[int, Candidate],
    chosen: int | None = None,
    dark: bool = False,
    height: int = HEIGHT,
) -> Spec:
    """The chart of ``view``; every point can be picked.

    Args:
        board: What to show; it has points.
        view: Axes and budget.
        candidates: Members of the front and of the control with the precision of their quality, by trial.
        chosen: Number of the trial to mark, or None.
        dark: For a dark page.
        height: In pixels.
    """
    theme, points = theme_of(dark), shown_points(board, view)
    tables = _tables(board, view, candidates, chosen)
    x = objective_axis(board.objective(view.x), _extent(board, view, points, view.x), "x", vertical=False)
    bars = [tables[f"errors of the {kind}"][end] for kind in _BARRED for end in ("y", "until")]
    upwards = pd.concat([_extent(board, view, points, view.y), *(bar.astype(float) for bar in bars)])
    y = objective_axis(board.objective(view.y), upwards, "y", vertical=True)
    tables |= _label_tables(board, view, x, y, height)
    # a colour of their own: sharing the points' scale would take the legend away
    rules = {"x": x, "y": y, "y2": {"field": "until"}}
    layers = [
        *_limits(theme, x, y),
        mark(
            "steps", "line", {"x": x, "y": y, "order": field("order")}, interpolate="step-after", color=theme.kinds[0]
        ),
        *(mark(f"errors of the {kind}", "rule", rules, color=theme.kind(kind), opacity=0.55) for kind in _BARRED),
        _points(board, view, theme, x, y, set(points["kind"])),
        *_labels(theme, x, y),
        mark("chosen", "point", {"x": x, "y": y}, size=330, strokeWidth=3, color=theme.chosen, opacity=1, aria=False),
    ]
    return figure(layers, tables, theme, height)


def describe(board: Board, view: View) -> str:
    """The chart in words, for those who do not see it."""
    points = shown_points(board, view)
    names = f"{said(view.y)} against {said(view.x)}"
    front = points[points["kind"] == "front"]
    if front.empty:
        return f"{names}; no searched trial within the budget is complete yet"
    ends = []
    for name in (view.y, view.x):
        values = [float(value) for value in front[name]]
        best = min(values) if is_better_low(board.objective(name)) else max(values)
        number = int(front["trial"].iloc[values.index(best)])
        ends.append(f"trial {number} is best in {said(name)}: {shown_value(name, best)}")
    return f"{names} of {len(points):,} trials; {len(front)} on the Pareto front; {'; '.join(ends)}"


def _tables(
    board: Board, view: View, candidates: Mapping[int, Candidate], chosen: int | None
) -> dict[str, pd.DataFrame]:
    points, errors = _placed(board, view), _errors(board, view, candidates)
    return {  # but for the labels, which need the axes
        "points": _drawn(board, view),
        "steps": _steps(board, view),
        **{f"errors of the {kind}": errors[errors["kind"] == kind] for kind in _BARRED},
        "chosen": points[points["trial"] == (-1 if chosen is None else chosen)][["x", "y"]],
        **_limit_tables(board, view),
    }


def _label_tables(board: Board, view: View, x: Spec, y: Spec, height: int) -> dict[str, pd.DataFrame]:
    """The names of control and references, each where it covers least."""
    points = _placed(board, view)
    named = points[points["kind"].isin(_LABELLED)]
    levels = _limit_tables(board, view)["levels"]
    labels = placed(named[["x", "y", "label", "kind"]], _drawn(board, view), _steps(board, view), levels, x, y, height)
    return {f"labels of the {kind}": labels[labels["kind"] == kind].drop(columns="kind") for kind in _LABELLED}


@lru_cache(maxsize=32)
def _placed(board: Board, view: View) -> pd.DataFrame:
    """The points of ``view`` with their places on its axes as ``x`` and ``y``."""
    points = shown_points(board, view)
    return points.assign(x=points[view.x].astype(float), y=points[view.y].astype(float))


@lru_cache(maxsize=32)
def _drawn(board: Board, view: View) -> pd.DataFrame:
    """The points in the order in which they are drawn, dominated ones thinned, with what a screen reader says."""
    points = _placed(board, view)
    dominated = points["kind"] == "dominated"
    across, up = (is_logarithmic(board.objective(name), points[name].astype(float)) for name in (view.x, view.y))
    few = thinned(points[dominated], "x", "y", (across, up))
    shown = pd.concat([few, points[~dominated].assign(stands_for=1)])
    shown = shown.sort_values("kind", key=lambda column: column.map(_DRAWN.index), kind="stable")
    shown = shown.assign(
        size=shown["kind"].map(_SIZES) if view.size is None else shown[view.size],
        opacity=shown["kind"].map({"dominated": 0.65}).fillna(1.0),
        words=[_words(view, *row) for row in zip(*(shown[name] for name in _SAID), strict=True)],
    )
    return shown[[*_SAID, "size", "opacity", "words"]]


_SAID = ("trial", "x", "y", "kind", "label", "stands_for")


def _words(view: View, trial: int, x: float, y: float, kind: str, label: str, stands_for: int) -> str:
    """A point as a screen reader says it."""
    what = {"front": "on the front", "dominated": "dominated", "control": f"control {label}"}.get(
        kind, f"reference {label}"
    )
    more = f", drawn for {stands_for} trials there" if stands_for > 1 else ""
    return f"trial {trial}: {shown_value(view.y, y)} with {shown_value(view.x, x)} {said(view.x)}, {what}{more}"


@lru_cache(maxsize=32)
def _steps(board: Board, view: View) -> pd.DataFrame:
    """The edge of what the searched points dominate in the plane that is shown, up to the budget."""
    x, y, points = board.objective(view.x), board.objective(view.y), _placed(board, view)
    front = points[points["kind"] == "front"]
    across = front["x"] if is_better_low(x) else -front["x"]
    up = -front["y"] if is_better_low(y) else front["y"]
    members = pareto.front(list(zip(up.astype(float), across.astype(float), strict=True)))
    edge = front.iloc[members][["x", "y"]]
    if len(edge) and view.x == PARAMETERS:
        last = pd.DataFrame([{"x": float(view.budget or board.study.budget.parameters), "y": edge["y"].iloc[-1]}])
        edge = pd.concat([edge, last])
    return edge.assign(order=range(len(edge)))


def _errors(board: Board, view: View, candidates: Mapping[int, Candidate]) -> pd.DataFrame:
    """95 % intervals of the quality, where it is shown upwards and known."""
    known = {
        number: possible(board.study.metric, interval)
        for number, candidate in candidates.items()
        if (interval := candidate.quality.interval)
    }
    if view.y != board.study.objectives[0].name:
        known = {}
    points = _placed(board, view)
    rows = points[points["trial"].isin(known)]
    ends = [known[number] for number in rows["trial"]]
    return pd.DataFrame(
        {"x": rows["x"], "y": [low for low, _ in ends], "until": [high for _, high in ends], "kind": rows["kind"]}
    )


def _extent(board: Board, view: View, points: pd.DataFrame, name: str) -> pd.Series[float]:
    """All values of an objective that have to be seen: points, what is drawn as a level, the budget."""
    values = points[name].astype(float)
    extra = []
    if name == board.study.metric:
        extra += [score for _, score in _levels(board)]
    if name == PARAMETERS:
        extra.append(float(view.budget or board.study.budget.parameters))
    return pd.concat([values, pd.Series(extra, dtype=float)]) if extra else values


def _limit_tables(board: Board, view: View) -> dict[str, pd.DataFrame]:
    """The budget, and what is drawn as a level, where their axes are shown."""
    budget = view.budget or board.study.budget.parameters
    has_budget, levels = view.x == PARAMETERS, _levels(board) if view.y == board.study.metric else []
    return {
        "budget": pd.DataFrame([{"x": budget, "text": f"budget {budget:,}"}] if has_budget else []),
        "levels": pd.DataFrame([{"y": score, "text": f"{name} {score:.4f}"} for name, score in levels]),
    }


def _levels(board: Board) -> list[tuple[str, float]]:
    """Label and quality of the references that no budget holds: the head alone, and full fine-tuning."""
    return [
        (one.label or "head only", one.values[board.study.metric])
        for one in board.standing.references
        if not board.is_reference_point(one)
    ]


def _limits(theme: Theme, x: Spec, y: Spec) -> list[Spec]:
    style = {"color": theme.text, "align": LEVEL.align, "dx": LEVEL.dx, "fontSize": 11}
    edge = {"value": "width"}
    return [
        mark("budget", "rule", {"x": x}, color=theme.line, strokeDash=[4, 4]),
        mark(
            "budget",
            "text",
            {"x": x, "y": {"value": "height"}, "text": field("text", "nominal")},
            baseline="bottom",
            dy=-4,
            **style,
        ),
        mark("levels", "rule", {"y": y}, color=theme.line, strokeDash=[2, 4]),
        mark("levels", "text", {"y": y, "x": edge, "text": field("text", "nominal")}, dy=LEVEL.dy, **style),
    ]


def _colour(theme: Theme, present: Collection[str]) -> Spec:
    named = [kind for kind in KINDS if kind != "reference" or kind in present]
    legend = {"title": None, "symbolSize": 110, "symbolOpacity": 1, "values": named}
    scale = {"domain": list(KINDS), "range": list(theme.kinds)}
    return field("kind", "nominal", title=None, scale=scale, legend=legend)


def _points(board: Board, view: View, theme: Theme, x: Spec, y: Spec, present: Collection[str]) -> Spec:
    shapes = {"domain": list(KINDS), "range": ["circle", "circle", _DIAMOND, "square"]}
    size: Spec = field("size", scale=None, legend=None)
    if view.size is not None:
        size = field("size", title=said(view.size), scale={"range": [40, 420], "zero": False})
    lines = [
        tooltip("trial", "trial", kind="nominal"),
        tooltip("y", said(view.y), ",.4~f"),
        tooltip("x", said(view.x), ",.4~f"),
    ]
    if view.size is not None:
        lines.append(tooltip("size", said(view.size), ",.4~f"))
    lines += [tooltip(name, name.replace("_", " "), kind="nominal") for name in ("kind", "label", "stands_for")]
    layer = mark(
        "points",
        "point",
        {
            "x": x,
            "y": y,
            "color": _colour(theme, present),
            "shape": field("kind", "nominal", title=None, scale=shapes),
            "size": size,
            "opacity": field("opacity", scale=None, legend=None),
            "description": field("words", "nominal"),
            "tooltip": lines,
        },
        filled=True,
        opacity=1,
        cursor="pointer",
    )
    selection = {"type": "point", "fields": ["trial"], "toggle": False}
    return {**layer, "params": [{"name": SELECTION, "select": selection}]}


def _labels(theme: Theme, x: Spec, y: Spec) -> list[Spec]:
    """Names of the points of control and references, each over a halo of the page's colour."""
    encoding = {"x": x, "y": y, "text": field("label", "nominal")}
    shared = {"baseline": "middle", "fontSize": 11, "tooltip": None, "aria": False}
    shared |= {name: {"expr": f"datum.{name}"} for name in ("align", "dx", "dy")}
    halo = {"stroke": theme.page, "strokeWidth": 2.5, "opacity": 0.8}
    return [
        mark(f"labels of the {kind}", "text", encoding, **shared, **style)
        for kind in _LABELLED
        for style in (halo, {"color": theme.kind(kind)})
    ]


__all__ = ["SELECTION", "View", "describe", "front_chart", "shown_points"]
