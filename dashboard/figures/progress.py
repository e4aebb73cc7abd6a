"""How a search went on: the hypervolume over trials or seconds, beside the control's; curves of one training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from autopeft import pareto
from autopeft.objectives import point
from autopeft.scales import box
from autopeft.study import Origin
from dashboard.board import Board
from dashboard.figures.vega import Spec, field, figure, mark, theme_of, tooltip

MOST = 400
"""Points of a line: more are not seen."""


def volume_table(board: Board, over: str) -> pd.DataFrame:
    """The hypervolume of front and control after each step, shape [n]: at, hypervolume, which.

    Args:
        board: What to show.
        over: ``trials`` or ``seconds``.
    """
    own = [
        {"at": float(volume.completed) if over == "trials" else volume.seconds, "hypervolume": volume.hypervolume}
        for volume in _few(board.volumes)
    ]
    end = max([row["at"] for row in own], default=0.0)
    control = [{"at": at, "hypervolume": value} for at, value in control_volumes(board, over)]
    if control:
        control.append({"at": max(end, control[-1]["at"]), "hypervolume": control[-1]["hypervolume"]})
    return pd.DataFrame(
        [{**row, "which": "front"} for row in own] + [{**row, "which": "control"} for row in control],
        columns=["at", "hypervolume", "which"],
    )


def control_volumes(board: Board, over: str) -> list[tuple[float, float]]:
    """(trials or seconds, hypervolume) of the control's front after each of its trials."""
    order = sorted((one for one in board.complete if one.seconds is not None), key=lambda one: one.seconds or 0.0)
    study, measured_in = board.study, box(board.study, board.glances)
    seen: list[pareto.Point] = []
    found = []
    for count, glance in enumerate(order, 1):
        place = point(study, glance) if glance.origin is Origin.CONTROL else None
        if place is not None:
            seen.append(place)
            at = float(count) if over == "trials" else glance.seconds or 0.0
            found.append((at, pareto.hypervolume(seen, measured_in)))
    return found


_STROKES: Spec = {"symbolType": "stroke", "symbolSize": 300, "symbolStrokeWidth": 2}
"""A legend of lines."""


def volume_chart(board: Board, over: str, dark: bool = False, height: int = 300) -> Spec | None:
    """The hypervolume over ``trials`` or ``seconds``, the control's beside it; None before there is any."""
    table, theme = volume_table(board, over), theme_of(dark)
    if table.empty:
        return None
    title = "trials finished" if over == "trials" else "minutes since the study began"
    if over == "seconds":
        table = table.assign(at=table["at"] / 60)
    colour = field(
        "which",
        "nominal",
        title=None,
        scale={"domain": ["front", "control"], "range": [theme.kind("front"), theme.kind("control")]},
        legend=_STROKES,
    )
    ticks = {"format": "~s", "tickMinStep": 1} if over == "trials" else {"format": "~g"}
    encoding = {
        "x": field("at", title=title, axis={"grid": False, **ticks}),
        "y": field("hypervolume", title="hypervolume · higher is better: up", scale={"zero": True}),
        "color": colour,
        "strokeDash": field(
            "which",
            "nominal",
            title=None,
            scale={"domain": ["front", "control"], "range": [[1, 0], [6, 4]]},
            legend=_STROKES,
        ),
        "tooltip": [
            tooltip("which", "of", kind="nominal"),
            tooltip("at", title, ",.4~r"),
            tooltip("hypervolume", "hypervolume", ".4f"),
        ],
    }
    layers = [mark("volumes", "line", encoding, interpolate="step-after", strokeWidth=2, point={"size": 14})]
    return figure(layers, {"volumes": table}, theme, height)


def curve_chart(curve: Sequence[tuple[int, float]], steps: int, dark: bool = False) -> Spec | None:
    """Training loss over steps; None without a curve."""
    theme = theme_of(dark)
    if not curve:
        return None
    table = pd.DataFrame(curve, columns=["step", "loss"])
    encoding = {
        "x": field(
            "step", title="step", scale={"domain": [0, max(steps, int(table["step"].max()))]}, axis={"grid": False}
        ),
        "y": field("loss", title="training loss · lower is better", scale={"zero": False}),
        "tooltip": [tooltip("step", "step"), tooltip("loss", "loss", ".4f")],
    }
    style = {"color": theme.kinds[0], "strokeWidth": 2, "point": {"size": 18, "color": theme.kinds[0]}}
    return figure([mark("curve", "line", encoding, **style)], {"curve": table}, theme, 260)


def _few(volumes: Sequence[object]) -> list:  # type: ignore[type-arg]
    if len(volumes) <= MOST:
        return list(volumes)
    rows = np.unique(np.linspace(0, len(volumes) - 1, MOST).astype(int))
    return [volumes[row] for row in rows]
