"""The trial page: score sheet, curve, repeats, what it rests on, every attempt, export."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from autopeft.errors import AutopeftError
from autopeft.study import TrialState
from dashboard import frame, queries, selection
from dashboard.board import Board, said, shown_value
from dashboard.figures.progress import curve_chart
from dashboard.frame import guarded, plain
from dashboard.views import exporting, headline, sheet
from search_spaces.configuration import Configuration


@guarded
def page() -> None:
    """The whole page."""
    st.title("Trial")
    board = frame.chosen_board()
    if board is None:
        return
    if not board.glances:
        headline.nothing_yet(board)
        return
    number = selection.chosen(board)
    if number is None:
        number = board.glances[0].number
    title, choice = st.columns([6, 5], gap="medium", vertical_alignment="bottom")
    title.subheader(f"Trial {number}")
    with choice:
        selection.picker(board, number)
    plan = queries.configuration(board, queries.database(), number)
    if plan is not None:
        _body(board, number, plan)


def _body(board: Board, number: int, plan: Configuration) -> None:
    glance = board.by_number[number]
    st.caption(sheet.summary(board, number, plan))
    sheet.show(board, number, plan)
    _error(board, number)
    sheet.because(board, number)
    left, right = st.columns([6, 5], gap="medium")
    with left:
        _curve(board, number)
        _repeats(board, number)
        _attempts(board, number)
    with right:
        if glance.state is TrialState.COMPLETE:
            st.subheader("Export")
            exporting.panel(board, number, plan)
        st.subheader("Values")
        sheet.values(board, number)
        _provenance(board, number)


def _error(board: Board, number: int) -> None:
    glance = board.by_number[number]
    if not glance.error:
        return
    st.error(f"{glance.state.value.lower()}: {plain(glance.error)}", icon=":material/error:")
    whole = queries.error(queries.database(), board.study.name, number) or ""
    if "\n" in whole.strip():
        with st.expander("The whole error"):
            st.code(whole, language=None)


def _curve(board: Board, number: int) -> None:
    st.subheader("Training loss")
    measured = queries.measurement(queries.database(), board.study.name, number)
    spec = curve_chart(measured.curve if measured else (), board.study.fidelity.steps, frame.is_dark())
    if spec is None or measured is None:
        st.caption("No curve is recorded yet.")
        return
    (first, high), (last, low) = measured.curve[0], measured.curve[-1]
    words = f"Training loss from {high:.4f} at step {first} to {low:.4f} at step {last}"
    frame.chart(spec, words, key="curve")


def _repeats(board: Board, number: int) -> None:
    """The same plan under other seeds."""
    glance = board.by_number[number]
    group = [one for one in board.glances if one.digest == glance.digest]
    if len(group) < 2:
        return
    st.subheader("Repeats of this plan")
    names = [objective.name for objective in board.study.objectives]
    rows = [
        [
            one.number,
            one.replicate,
            one.state.value.lower(),
            *(shown_value(name, one.values[name]) if name in one.values else "–" for name in names),
        ]
        for one in group
    ]
    table = pd.DataFrame(rows, columns=["trial", "replicate", "state", *map(said, names)])
    st.dataframe(table, hide_index=True, alt="The repeats of this plan, with their values")


def _attempts(board: Board, number: int) -> None:
    st.subheader("Attempts")
    try:
        found = queries.attempts(queries.database(), board.study.name, number)
    except AutopeftError as error:
        st.caption(plain(str(error)))
        return
    if not found:
        st.caption("Nobody has taken it yet.")
        return
    rows = [
        {
            "attempt": one.number,
            "worker": one.worker,
            "outcome": one.outcome.value.lower() if one.outcome else "running",
            "seconds": None if one.finished_at is None else round(one.finished_at - one.started_at, 1),
            "failure": one.failure.value if one.failure else "",
            "reason": one.reason or "",
        }
        for one in found
    ]
    st.dataframe(pd.DataFrame(rows), hide_index=True, alt=f"Attempts at trial {number}")
    for one in found:
        if one.traceback:
            with st.expander(f"Traceback of attempt {one.number}"):
                st.code(one.traceback, language=None)


def _provenance(board: Board, number: int) -> None:
    """What the measurement rests on."""
    glance, study = board.by_number[number], board.study
    found = queries.attempts(queries.database(), study.name, number)
    environment = dict(study.environment) | (dict(found[-1].environment) if found else {})
    rows = [
        ("digest", glance.digest),
        ("replicate", str(glance.replicate)),
        ("study seed", str(study.seed)),
        ("backbone", f"{study.model.source} ({study.model.sha256[:12]})"),
        ("training", f"{study.fidelity.steps} steps of {study.fidelity.batch_size} rows"),
        *((said(key), str(value)) for key, value in sorted(environment.items())),
    ]
    with st.expander("Provenance"):
        st.table(pd.DataFrame(rows, columns=["what", "value"]), border="horizontal", hide_index=True)
