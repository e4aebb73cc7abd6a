"""The front page: how the study stands, its front as a chart and as a table, and the trial that was chosen."""

from __future__ import annotations

from functools import partial

import streamlit as st

from autopeft.study import PARAMETERS, TrialState
from dashboard import figures, frame, selection
from dashboard.frame import plain
from dashboard.queries import Snapshot
from dashboard.views import trial

_SHOWN = ("Front", "Control", "All")


def page() -> None:
    """The whole page."""
    st.title("Pareto front")
    snapshot = frame.chosen_study()
    if snapshot is None:
        return
    chosen = selection.chosen(snapshot)
    _headline(snapshot)
    if snapshot.has_points:
        left, right = st.columns([6, 5], gap="medium")
        with left:
            _chart(snapshot, chosen)
        with right:
            _table(snapshot, chosen)
    else:
        _nothing_yet(snapshot)
    if snapshot.trials:
        trial.panel(snapshot, chosen)


def _headline(snapshot: Snapshot) -> None:
    study, standing = snapshot.study, snapshot.standing
    st.caption(
        f"{plain(study.task_name)} on {plain(study.backbone.name)} · space {plain(study.space.name)} · "
        f"budget {plain(study.budget.text)} = {study.budget.parameters:,} trainable parameters"
    )
    front, compared = standing.front, bool(standing.front and standing.control)
    done = sum(trial.state.is_final for trial in snapshot.trials)
    ahead = standing.hypervolume - standing.control_hypervolume
    columns = st.columns(5)
    columns[0].metric("Trials finished", f"{done:,} / {snapshot.expected:,}", help=_states(snapshot))
    columns[1].metric("On the front", f"{len(front):,}" if front else "–")
    columns[2].metric(f"Best {study.metric}", f"{front[-1].values[study.metric]:.4f}" if front else "–")
    columns[3].metric("Smallest on front", f"{front[0].values[PARAMETERS]:,.0f}" if front else "–")
    columns[4].metric(
        "Hypervolume",
        f"{standing.hypervolume:.4f}" if front else "–",
        delta=f"{ahead:+.4f}" if compared else None,
        delta_description="against the control" if compared else None,
        help="Share of the box of quality and cost that the front dominates, from 0 to 1.",
    )


def _states(snapshot: Snapshot) -> str:
    counts = ((state.value.lower(), snapshot.count(state)) for state in TrialState)
    return ", ".join(f"{count} {name}" for name, count in counts if count) or "none queued yet"


def _nothing_yet(snapshot: Snapshot) -> None:
    if snapshot.trials and all(trial.state.is_final for trial in snapshot.trials):
        st.warning(f"This study has no front: {_states(snapshot)}. Choose a trial below to see why.")
        return
    text = f"No trial is finished yet: {_states(snapshot)}. The front appears here with the first one."
    st.info(text, icon=":material/hourglass_empty:")


def _chart(snapshot: Snapshot, chosen: int | None) -> None:
    st.altair_chart(
        figures.front_chart(snapshot, chosen, frame.is_dark()),
        width="stretch",
        key=selection.CHART,
        on_select=partial(selection.from_chart, snapshot.study.name, figures.SELECTION),
        selection_mode=figures.SELECTION,
        alt=figures.describe(snapshot),
    )


def _table(snapshot: Snapshot, chosen: int | None) -> None:
    shown = st.segmented_control(
        "Trials shown", _SHOWN, default=_SHOWN[0], required=True, key="trials_shown", label_visibility="collapsed"
    )
    study, rows = snapshot.study, figures.table(snapshot, shown or _SHOWN[0])
    numbers = [int(number) for number in rows["trial"]]
    selection.mark_in_table(numbers, chosen)
    scores = figures.points(snapshot)["quality"]
    st.dataframe(
        rows,
        key=selection.TABLE,
        on_select=partial(selection.from_table, study.name, numbers),
        selection_mode="single-row",
        hide_index=True,
        height=figures.HEIGHT - 40,
        alt=f"Trials by {study.metric}; ticking a row chooses the trial",
        column_config={
            "trial": st.column_config.NumberColumn("trial", width=52),
            "quality": st.column_config.ProgressColumn(
                study.metric,
                format="%.4f",
                width=132,
                min_value=float(min(scores.min(), study.quality_floor)),
                max_value=float(max(scores.max(), study.quality_floor + 1e-9)),
            ),
            "cost": st.column_config.NumberColumn("parameters", format="localized", width=88),
            "layers": st.column_config.BarChartColumn("rank by layer", y_min=0, width=112),
            "label": st.column_config.TextColumn("label"),
        },
    )
