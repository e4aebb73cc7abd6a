"""The search health page: does the surrogate predict, does the search gain, is its space wide enough, what failed."""

from __future__ import annotations

from functools import lru_cache

import pandas as pd
import streamlit as st

from autopeft.candidates import repeats
from autopeft.health import Check, Edge, edges, leave_one_out, repeated
from autopeft.health.check import FEWEST, LEVELS, MOST
from autopeft.reasons import searched
from autopeft.scales import scale
from autopeft.study import Origin
from dashboard import frame, picks, queries
from dashboard.board import Board, said
from dashboard.figures.health import calibration_chart, prediction_chart
from dashboard.figures.progress import volume_chart
from dashboard.frame import guarded, plain
from dashboard.views import headline


@guarded
def page() -> None:
    """The whole page."""
    st.title("Search health")
    board = frame.chosen_board()
    if board is None:
        return
    headline.caption(board)
    if not board.has_points:
        headline.nothing_yet(board)
        _failures(board)
        return
    _surrogate(board)
    _volumes(board)
    left, right = st.columns(2, gap="medium")
    with left:
        _space(board)
        _twice(board)
    with right:
        _noise(board)
        _failures(board)


def _surrogate(board: Board) -> None:
    st.subheader("Does the surrogate predict?")
    found = check(board, queries.database(), len(board.complete))
    if found is None:
        st.caption(f"Told once {FEWEST} plans of the space are measured.")
        return
    st.markdown(plain(found.verdict))
    left, right = st.columns([6, 5], gap="medium")
    dark, metric = frame.is_dark(), said(board.study.metric)
    words = f"{len(found.numbers)} plans, each predicted from all others: root mean square error {found.error:.4f}"
    with left:
        frame.chart(prediction_chart(found, metric, dark), words, key="prediction")
    with right:
        covered = ", ".join(f"{found.coverage(level):.0%} within {level:.0%}" for level in LEVELS)
        frame.chart(calibration_chart(found, dark), f"Calibration of the surrogate: {covered}", key="calibration")
    st.caption(
        f"{words}, {found.explained:.0%} of the variance explained. Within the intervals: {plain(covered)}. "
        f"The latest {MOST} plans at most; hyperparameters are fitted once, to all of them."
    )


@lru_cache(maxsize=8)
def check(board: Board, url: str, complete: int) -> Check | None:
    """The leave-one-out check of a board, made anew when more trials are complete."""
    groups = {
        group[0].number: group
        for group in repeats(board.complete).values()
        if group[0].origin is not Origin.REFERENCE and board.study.metric in group[0].values
    }
    latest = queries.same_numbers(sorted(groups)[-MOST:])
    plans = queries.configurations(board, url, latest)
    values = {number: [one.values[board.study.metric] for one in groups[number]] for number in latest}
    return leave_one_out(board.space, scale(board.study).cost, plans, values)


def _volumes(board: Board) -> None:
    st.subheader("Does it still gain?")
    over = st.segmented_control(
        "Over",
        ["trials", "seconds"],
        default="trials",
        required=True,
        key="over",
        bind="query-params",
        label_visibility="collapsed",
    )
    spec = volume_chart(board, str(over), frame.is_dark())
    standing = board.standing
    words = f"Hypervolume over {over}: front {standing.hypervolume:.4f}, control {standing.control_hypervolume:.4f}"
    frame.chart(spec, words, key="volumes")
    if board.volumes:
        gained = next((one for one in board.volumes if one.hypervolume >= board.volumes[-1].hypervolume - 1e-12), None)
        if gained is not None:
            after = [one for one in searched(board.glances) if (one.seconds or 0.0) > gained.seconds]
            st.caption(
                f"Hypervolume {standing.hypervolume:.4f}; it has not grown for the last {len(after):,} searched trials."
            )


def _space(board: Board) -> None:
    st.subheader("Is the space wide enough?")
    found = _edges(board)
    if not found:
        st.caption("No member of the front stands at an upper edge of the space or at an end of the learning rate.")
    for edge in found[:12]:
        st.markdown(f"- {'**' if edge.is_reached else ''}{plain(edge.sentence)}{'**' if edge.is_reached else ''}")


def _edges(board: Board) -> list[Edge]:
    numbers = queries.same_numbers([trial.number for trial in board.front])
    plans = queries.configurations(board, queries.database(), numbers)
    return edges(board.space, list(plans.values()))


def _twice(board: Board) -> None:
    st.subheader("What was tried twice?")
    found = repeated(board.glances)
    if found.trials == found.plans:
        st.caption(f"Nothing: {found.plans:,} searched trials, {found.plans:,} different plans.")
        return
    st.caption(
        f"{found.trials:,} searched trials of {found.plans:,} different plans: {found.share:.1%} repeat a plan, the "
        f"most often tried one {found.most} times. Repeats on purpose are among them."
    )


def _noise(board: Board) -> None:
    st.subheader("How noisy is a value?")
    metric = board.study.metric
    noise = picks.noise(board, metric)
    if noise.deviation is None:
        st.caption("No plan has been repeated: what another seed changes is not known.")
    else:
        st.caption(
            f"Another seed moves {plain(said(metric))} by {noise.deviation:.4f} (standard deviation, from "
            f"{noise.degrees} repeat{'s' if noise.degrees > 1 else ''} beyond the first)."
        )
    found = check(board, queries.database(), len(board.complete))
    if found is not None:
        st.caption(f"The surrogate takes a single value to be off by {found.noise:.4f}.")


def _failures(board: Board) -> None:
    st.subheader("What failed?")
    by_cause = queries.failures(queries.database(), board.study.name)
    reasons = pd.Series([one.error for one in board.glances if one.error]).value_counts().head(8)
    if not by_cause and reasons.empty:
        st.caption("Nothing.")
        return
    if by_cause:
        table = pd.DataFrame(by_cause.items(), columns=["cause", "attempts"])
        st.dataframe(table, hide_index=True, alt="Attempts by cause of failure")
    if not reasons.empty:
        table = pd.DataFrame({"trials": reasons.to_numpy(), "reason": reasons.index})
        st.dataframe(table, hide_index=True, alt="Failed trials by the first line of their reason")
