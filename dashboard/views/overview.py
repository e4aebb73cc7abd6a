"""The overview: how far the study is, what it has found, who works on it, what it costs. The page to leave open."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from autopeft.ruling import judgement
from dashboard import frame, picks, queries, selection
from dashboard.board import Board
from dashboard.figures.front import SELECTION, View, describe, front_chart
from dashboard.figures.progress import volume_chart
from dashboard.frame import guarded, plain
from dashboard.views import headline

_CHART, _EVENTS, _HEIGHT = "overview_chart", 8, 330


@guarded
def page() -> None:
    """The whole page."""
    st.title("Overview")
    board = frame.chosen_board()
    if board is None:
        return
    headline.caption(board)
    headline.figures(board)
    _progress(board)
    if board.has_points:
        left, right = st.columns([6, 5], gap="medium")
        with left:
            st.subheader("Front")
            _front(board)
        with right:
            st.subheader("Hypervolume over trials")
            spec = volume_chart(board, "trials", frame.is_dark(), _HEIGHT)
            if spec is None:
                st.info("The hypervolume is recorded with the first searched trial.")
            frame.chart(spec, _volume_words(board), key="overview_volume")
        _verdict(board)
    else:
        headline.nothing_yet(board)
    left, right = st.columns([6, 5], gap="medium")
    with left:
        _running(board)
    with right:
        _latest(board)


def _progress(board: Board) -> None:
    """Budget of trials as a bar, with the time to come and the time spent."""
    left, spent = headline.remaining_seconds(board), headline.spent_seconds(board)
    parts = [board.states_text(), f"{headline.duration(spent)} of training and scoring"]
    if left is not None:
        parts.append(f"about {headline.duration(left)} left")
    elif board.is_over:
        parts.append("target reached")
    st.progress(min(1.0, board.finished / max(1, board.expected)), text=plain(" · ".join(parts)))


def _front(board: Board) -> None:
    names = [objective.name for objective in board.study.objectives]
    view = View(names[1] if len(names) > 1 else names[0], names[0])

    def take() -> None:
        if selection.from_chart(board.study.name, SELECTION, _CHART):
            st.session_state["go"] = "trial"

    errors = picks.with_errors(board, queries.database())
    frame.chart(
        front_chart(board, view, errors, None, frame.is_dark(), _HEIGHT),
        describe(board, view),
        key=_CHART,
        on_select=take,
        selection_mode=SELECTION,
    )
    if st.session_state.pop("go", None):
        frame.go("trial")
    frame.link("front", "Pick and export from the front", ":material/stacked_line_chart:")


def _verdict(board: Board) -> None:
    """Front against control: one sentence, and below it what follows from it."""
    found = picks.again(board, queries.database())
    first, *more = judgement(board.study, board.glances, board.standing, found)
    st.markdown("\n".join([plain(first), *([""] if more else []), *(f"- {plain(line)}" for line in more)]))


def _volume_words(board: Board) -> str:
    standing = board.standing
    return (
        f"Hypervolume over finished trials: the front's has reached {standing.hypervolume:.4f}, "
        f"the control's {standing.control_hypervolume:.4f}"
    )


def _running(board: Board) -> None:
    st.subheader("Now running")
    running = [glance for glance in board.glances if glance.owner]
    if not running:
        st.caption("Nothing runs." if board.is_over else f"Nothing runs just now: {plain(board.states_text())}.")
        return
    rows = [(one.number, one.label or one.origin.value, one.attempt, one.owner) for one in running[:50]]
    st.dataframe(
        pd.DataFrame(rows, columns=["trial", "what", "attempt", "worker"]), hide_index=True, alt="Trials that run now"
    )


def _latest(board: Board) -> None:
    st.subheader("Latest")
    events = queries.latest_events(queries.database(), board, _EVENTS)
    rows = [(event.kind, "" if event.trial is None else str(event.trial), _time(event.at)) for event in events]
    if rows:
        shown = pd.DataFrame(rows, columns=["event", "trial", "at (UTC)"])
        st.dataframe(shown, hide_index=True, alt="The latest events of the study, the newest first")


def _time(seconds: float) -> str:
    return str(pd.Timestamp(seconds, unit="s").strftime("%H:%M:%S"))
