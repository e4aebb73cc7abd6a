"""The chosen trial: what it is, its score sheet, its values, and its export."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from autopeft.errors import AutopeftError
from autopeft.report import first_line, rank_sum
from autopeft.score_sheet import html_sheet
from autopeft.study import PARAMETERS, Trial, TrialState
from dashboard import exporting, queries, selection
from dashboard.frame import plain
from dashboard.queries import Snapshot

_PACKED, _FAILED = "export_packed", "export_failed"


def panel(snapshot: Snapshot, number: int | None) -> None:
    """The part of the page below the front."""
    st.divider()
    trial = snapshot.trial(number)
    title, pick = st.columns([6, 5], gap="medium", vertical_alignment="bottom")
    title.subheader("Choose a trial" if trial is None else f"Trial {trial.number}")
    with pick:
        selection.picker(snapshot, number)
    if trial is None:
        return
    st.caption(_summary(snapshot, trial))
    if trial.error:
        st.error(f"{trial.state.value.lower()}: {plain(first_line(trial.error))}", icon=":material/error:")
    layers, values = st.columns([6, 5], gap="medium")
    with layers:
        st.html(html_sheet(trial.configuration, snapshot.study.backbone))
    with values:
        if trial.state is TrialState.COMPLETE:
            _export(snapshot, trial)
        _values(snapshot.study.metric, trial)


def _summary(snapshot: Snapshot, trial: Trial) -> str:
    study, configuration = snapshot.study, trial.configuration
    cost = study.search_space.cost(configuration)
    score = f"{study.metric} **{trial.values[study.metric]:.4f}** · " if study.metric in trial.values else ""
    return (
        f"{score}{cost:,} trainable parameters ({cost / study.backbone.parameter_count:.3%}) · "
        f"Σ rank {rank_sum(configuration)} · learning rate {configuration.training.learning_rate:g} · "
        f"{trial.state.value.lower()}, {trial.origin.value}{plain(f' ({trial.label})') if trial.label else ''}"
    )


def _values(metric: str, trial: Trial) -> None:
    if not trial.values:
        st.caption("Nothing is measured yet.")
        return
    ordered = sorted(trial.values.items(), key=lambda item: (item[0] != metric, item[0]))
    rows = [(name.replace("_", " "), _number(name, value)) for name, value in ordered]
    frame = pd.DataFrame(rows, columns=["measured", "value"])
    st.table(frame, border="horizontal", hide_index=True, alt=f"Measured values of trial {trial.number}")


def _number(name: str, value: float) -> str:
    if name == PARAMETERS:
        return f"{value:,.0f}"
    return f"{value:.1f} s" if name.endswith("_seconds") else f"{value:.4f}"


def _export(snapshot: Snapshot, trial: Trial) -> None:
    name, url = snapshot.study.name, queries.database()
    chosen = st.segmented_control(
        "Export for",
        list(exporting.TARGETS),
        default="peft",
        required=True,
        format_func=exporting.TARGETS.__getitem__,
        key="export_target",
    )
    target = str(chosen or "peft")
    key = (name, trial.number, target)
    if st.button("Export", type="primary", icon=":material/ios_share:", key="export", width="stretch"):
        with st.spinner("Writing the files and comparing them with the trained model …"):
            _run(url, key)
    held, failed = st.session_state.get(_PACKED), st.session_state.get(_FAILED)
    if failed and failed[0] == key:
        st.error(plain(failed[1]), icon=":material/error:")
    if held and held[0] == key:
        packed = held[1]
        st.success(f"Verified: {len(packed.files)} files.", icon=":material/check_circle:")
        st.download_button(
            f"Download {packed.name}",
            packed.content,
            packed.name,
            "application/zip",
            icon=":material/download:",
            on_click="ignore",
            width="stretch",
        )
    st.code(exporting.shown_command(url, name, trial.number, target), language="bash", wrap_lines=True)


def _run(url: str, key: tuple[str, int, str]) -> None:
    st.session_state.pop(_PACKED, None)
    st.session_state.pop(_FAILED, None)
    try:
        st.session_state[_PACKED] = (key, exporting.export(url, *key))
    except AutopeftError as error:
        st.session_state[_FAILED] = (key, str(error))
