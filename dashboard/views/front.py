"""The front page: any two objectives as axes, a budget, a rule to pick by, and the trial that was chosen."""

from __future__ import annotations

import math
from functools import partial

import pandas as pd
import streamlit as st

from autopeft.errors import AutopeftError
from autopeft.picking import RULES, Pick, Rule, pick
from autopeft.study import PARAMETERS, TrialState
from dashboard import frame, picks, queries, selection
from dashboard.board import Board, said, said_shortly
from dashboard.figures.front import SELECTION, View, describe, front_chart, shown_points
from dashboard.figures.vega import HEIGHT
from dashboard.frame import guarded, plain
from dashboard.views import exporting, headline, sheet

_FRESH = "Mean of runs that had no part in the choice; the value beside it chose the member and flatters it."
_ODDS = "Probability that no other member dominates it, by the fresh runs."
_ROW = 35
"""Pixels of a row of a table: one with fewer rows than there is room for is no higher than they are."""

_SHOWN = ("Front", "Control", "Reference", "All")
MOST_ROWS = 1000
"""Rows of the table of all trials: the best ones; any other is found by its number."""


@guarded
def page() -> None:
    """The whole page."""
    st.title("Pareto front")
    board = frame.chosen_board()
    if board is None:
        return
    headline.caption(board)
    if not board.has_points:
        headline.nothing_yet(board)
        number = selection.chosen(board)
        if board.glances:
            _trial(board, number)
        return
    view, rule, within = _controls(board)
    picked = _picked(board, view, rule, within)
    chosen = selection.chosen(board)
    left, right = st.columns([6, 5], gap="medium")
    with left:
        _chart(board, view, chosen)
    with right:
        _table(board, view, chosen)
    if picked is not None:
        _say(board, picked)
    _trial(board, chosen)


def _controls(board: Board) -> tuple[View, Rule | None, float | None]:
    """Axes, budget and rule; the address restores them."""
    names = [objective.name for objective in board.study.objectives]
    x, y, size = (names[1] if len(names) > 1 else names[0]), names[0], None
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        if len(names) > 2:
            x = str(st.selectbox("Across", names, index=1, key="x", bind="query-params", format_func=said, width=190))
            y = str(st.selectbox("Up", names, index=0, key="y", bind="query-params", format_func=said, width=190))
            size = st.selectbox(
                "Size",
                names,
                index=None,
                key="size",
                bind="query-params",
                format_func=said,
                width=190,
                placeholder="equal",
            )
        budget = _budget(board)
        rule = st.segmented_control(
            "Pick by rule",
            list(Rule),
            key="rule",
            bind="query-params",
            help="; ".join(f"{one}: {text}" for one, text in RULES.items()),
        )
        within = None
        if rule == Rule.CHEAPEST_WITHIN:
            within = st.number_input(
                f"below the best {plain(y)}",
                0.0,
                1.0,
                None,
                0.005,
                "%.3f",
                key="within",
                bind="query-params",
                placeholder="1 standard error",
                width=170,
            )
    return View(x, y, size, budget), Rule(rule) if rule else None, within


def _budget(board: Board) -> int | None:
    """The slider: about twenty budgets on a log scale from the smallest configuration to the study's own."""
    low, high = board.space.smallest_cost, board.study.budget.parameters
    if PARAMETERS not in board.points or not 0 < low < high:
        return None
    steps = [float(f"{low * (high / low) ** (index / 20):.2g}") for index in range(1, 20)]
    options = [*sorted({int(step) for step in steps if low < step < high}), high]
    chosen = st.select_slider(
        "Budget (trainable parameters)",
        options,
        value=high,
        key="budget",
        bind="query-params",
        format_func=lambda one: f"{one:,}",
        width=280,
    )
    return None if chosen == high else int(chosen)


def _picked(board: Board, view: View, rule: Rule | None, within: float | None) -> Pick | None:
    """What the rule picks; chosen too, when the rule or what it depends on has just changed."""
    if rule is None:
        st.session_state.pop("ruled", None)
        return None
    try:
        found = picks.members(board, queries.database(), view.budget)
        picked = pick(found, board.study.objectives, rule, within)
    except AutopeftError as error:
        st.warning(plain(str(error)))
        return None
    asked = (board.study.name, rule, within, view.budget)
    if st.session_state.get("ruled") != asked:
        st.session_state["ruled"] = asked
        selection.choose(board.study.name, picked.number)
    return picked


def _say(board: Board, picked: Pick) -> None:
    ties = ", ".join(map(str, picked.ties[:12])) + (" …" if len(picked.ties) > 12 else "")
    tied = (
        f" Ties, not told apart from it (95 %): trial{'s' if len(picked.ties) > 1 else ''} {ties}."
        if picked.ties
        else " No other member is a tie."
    )
    st.info(
        plain(f"{picked.rule.value}: trial {picked.number}; {picked.why}.{tied}"),
        icon=":material/rule:",
    )


def _chart(board: Board, view: View, chosen: int | None) -> None:
    if shown_points(board, view).empty:
        st.info("No trial is within this budget yet.")
        return
    errors = picks.with_errors(board, queries.database(), view.budget)
    frame.chart(
        front_chart(board, view, errors, chosen, frame.is_dark()),
        describe(board, view),
        key=selection.CHART,
        on_select=partial(selection.from_chart, board.study.name, SELECTION),
        selection_mode=SELECTION,
    )


def _table(board: Board, view: View, chosen: int | None) -> None:
    shown = st.segmented_control(
        "Trials shown",
        _SHOWN,
        default=_SHOWN[0],
        required=True,
        key="shown",
        bind="query-params",
        label_visibility="collapsed",
    )
    rows = table(board, view, shown or _SHOWN[0])
    numbers = [int(number) for number in rows["trial"]]
    selection.mark_in_table(numbers, chosen)
    scores = board.points[board.study.metric].astype(float)
    config = {
        "trial": st.column_config.NumberColumn("trial", width=52),
        "layers": st.column_config.BarChartColumn("rank by layer", y_min=0, width=112),
        "label": st.column_config.TextColumn("label"),
        "fresh": st.column_config.NumberColumn("fresh seeds", format="%.4f", width=84, help=_FRESH),
        "error": st.column_config.NumberColumn("± se", format="%.4f", width=68),
        "on_front": st.column_config.NumberColumn("on front", format="percent", width=68, help=_ODDS),
    }
    for name in (objective.name for objective in board.study.objectives):
        config[name] = st.column_config.NumberColumn(
            said_shortly(name), format="compact" if name != PARAMETERS else "localized", width=84
        )
    config[board.study.metric] = st.column_config.ProgressColumn(
        said(board.study.metric),
        format="%.4f",
        width=132,
        min_value=float(min(scores.min(), board.study.quality_floor)),
        max_value=float(max(scores.max(), board.study.quality_floor + 1e-9)),
    )
    st.dataframe(
        rows,
        key=selection.TABLE,
        on_select=partial(selection.from_table, board.study.name, numbers),
        selection_mode="single-row",
        hide_index=True,
        height=min(HEIGHT - 40, _ROW * (len(rows) + 1) + 3),
        alt=f"Trials by {said(board.study.metric)}; ticking a row chooses the trial",
        column_config=config,
    )


def table(board: Board, view: View, shown: str) -> pd.DataFrame:
    """Measured trials for people, best first: the front or the control with their layers, or the best of all."""
    points, metric = shown_points(board, view), board.study.metric
    names = [objective.name for objective in board.study.objectives]
    if shown != "All":
        points = points[points["kind"] == shown.lower()]
    points = points.sort_values(metric, ascending=False, kind="stable").head(MOST_ROWS)
    rows = points[["trial", *names]]
    if shown == "All":
        return rows.assign(label=points["label"].where(points["label"] != "", points["kind"]))
    numbers = queries.same_numbers([int(number) for number in rows["trial"]])
    plans = queries.configurations(board, queries.database(), numbers)
    layers = [[layer.extent for layer in plans[int(number)].layers] for number in rows["trial"]]
    rows = _with_fresh(board, view, rows).assign(layers=pd.Series(layers, index=rows.index, dtype=object))
    return rows if shown == "Front" else rows.assign(label=points["label"])


def _with_fresh(board: Board, view: View, rows: pd.DataFrame) -> pd.DataFrame:
    """``rows`` with the means of fresh runs, their standard errors and the odds of the front, where there are any."""
    again = picks.again(board, queries.database(), view.budget)
    known = {one.number: one.quality for one in (*again.front, *again.control)}
    if not known.keys() & set(rows["trial"]):
        return rows
    found = [known.get(int(number)) for number in rows["trial"]]
    means = [math.nan if one is None else one.mean for one in found]
    errors = [math.nan if one is None or one.error is None else one.error for one in found]
    rows = rows.assign(fresh=means, error=errors)
    if not again.memberships.keys() & set(rows["trial"]):
        return rows
    return rows.assign(on_front=[again.memberships.get(int(number), math.nan) for number in rows["trial"]])


def _trial(board: Board, number: int | None) -> None:
    """The chosen trial below the front: why it is there, its sheet, its export."""
    st.divider()
    title, choice = st.columns([6, 5], gap="medium", vertical_alignment="bottom")
    title.subheader("Choose a trial" if number is None else f"Trial {number}")
    with choice:
        selection.picker(board, number)
    if number is None:
        return
    plan = queries.configuration(board, queries.database(), number)
    if plan is None:
        return
    st.caption(sheet.summary(board, number, plan))
    glance = board.by_number[number]
    if glance.error:
        st.error(f"{glance.state.value.lower()}: {plain(glance.error)}", icon=":material/error:")
    layers, side = st.columns([7, 4], gap="medium")
    with layers:
        sheet.show(board, number, plan)
        sheet.because(board, number)
        frame.link("trial", "Everything about this trial", ":material/science:")
    with side:
        if glance.state is TrialState.COMPLETE:
            exporting.panel(board, number, plan)
        else:
            sheet.values(board, number)
