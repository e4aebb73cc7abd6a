"""What stands at the top of pages: the question of the study in a line, its figures, and what to say before any."""

from __future__ import annotations

import streamlit as st

from autopeft.proxy import trained_on
from autopeft.study import PARAMETERS, Origin, TrialState
from dashboard.board import Board, said, shown_value
from dashboard.frame import plain


def caption(board: Board) -> None:
    """The study in one line."""
    study = board.study
    names = ", ".join(said(objective.name) for objective in study.objectives)
    st.caption(
        f"{plain(study.task_name)} on {plain(trained_on(study))} · space {plain(study.space.name)} · "
        f"budget {plain(study.budget.text)} = {study.budget.parameters:,} trainable parameters · {plain(names)}"
    )


def figures(board: Board) -> None:
    """The study in five figures."""
    study, standing = board.study, board.standing
    front, compared = standing.front, bool(standing.front and standing.control)
    ahead = standing.hypervolume - standing.control_hypervolume
    columns = st.columns(5)
    columns[0].metric("Trials finished", f"{board.finished:,} / {board.expected:,}", help=board.states_text())
    columns[1].metric("On the front", f"{len(front):,}" if front else "–")
    best = max(front, key=lambda one: one.values[study.metric]) if front else None
    columns[2].metric(
        f"Best {said(study.metric)}", shown_value(study.metric, best.values[study.metric]) if best else "–"
    )
    smallest = min((one.values[PARAMETERS] for one in front), default=None)
    columns[3].metric("Smallest on front", f"{smallest:,.0f}" if smallest is not None else "–")
    columns[4].metric(
        "Hypervolume",
        f"{standing.hypervolume:.4f}" if front else "–",
        delta=f"{ahead:+.4f}" if compared else None,
        delta_description="against the control" if compared else None,
        help="Share of the box of quality and costs that the front dominates, from 0 to 1.",
    )


def nothing_yet(board: Board) -> None:
    """Why there is no plot."""
    if board.glances and all(glance.state.rests for glance in board.glances):
        st.warning(f"This study has no front: {board.states_text()}. Choose a trial below to see why.")
        return
    text = f"No trial is finished yet: {board.states_text()}. The front appears here with the first one."
    st.info(text, icon=":material/hourglass_empty:")


def remaining_seconds(board: Board) -> float | None:
    """Estimate of the wall-clock time to the target; None before it can be told, or when nothing runs."""
    running = board.states[TrialState.RUNNING]
    timed = [
        sum(value for name, value in glance.values.items() if name in ("train_seconds", "evaluate_seconds"))
        for glance in board.complete[-50:]
        if glance.origin is not Origin.REFERENCE
    ]
    left = board.expected - board.finished
    if not running or not timed or left <= 0:
        return None
    return sum(timed) / len(timed) * left / running


def spent_seconds(board: Board) -> float:
    """Time that devices have trained and scored for what is measured."""
    return sum(
        glance.values.get("train_seconds", 0.0) + glance.values.get("evaluate_seconds", 0.0)
        for glance in board.complete
    )


def duration(seconds: float) -> str:
    """A time for people: ``42 s``, ``6 min``, ``3.4 h``, ``2.1 days``."""
    for limit, size, unit in ((90, 1, "s"), (5400, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            value = seconds / size
            return f"{value:.0f} {unit}" if unit != "h" else f"{value:.1f} {unit}"
    return f"{seconds / 86_400:.1f} days"
