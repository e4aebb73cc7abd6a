"""Which trial is chosen: by a click in the chart, a row of the table, the list of trials, or the address.

One value in the session is the truth; each way of choosing writes it, and all of them show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from autopeft.study import TrialState
from dashboard.frame import plain
from dashboard.queries import Snapshot

_CHOSEN = "chosen"
CHART, TABLE, PICKER = "front_chart", "trial_table", "trial_picker"


def chosen(snapshot: Snapshot) -> int | None:
    """Number of the chosen trial: as the session has it, else the address, else the best of the front."""
    held = st.session_state.get(_CHOSEN)
    if held is None and "trial" in st.query_params:
        held = _from_address(snapshot)
    if held is not None and held[0] == snapshot.study.name and snapshot.trial(held[1]) is not None:
        st.session_state[_CHOSEN] = held
        st.query_params["trial"] = str(held[1])
        return int(held[1])
    st.query_params.pop("trial", None)
    st.session_state.pop(_CHOSEN, None)
    front = snapshot.standing.front
    return front[-1].number if front else None


def from_chart(study: str, parameter: str) -> None:
    """Takes over a click on a point; a click beside the points changes nothing."""
    picked = _selected(CHART).get(parameter) or []
    if picked:
        _choose(study, int(picked[0]["trial"]))


def from_table(study: str, numbers: Sequence[int]) -> None:
    """Takes over the row that was ticked; ``numbers`` are the trials in the order of the rows."""
    rows = _selected(TABLE).get("rows") or []
    if rows and rows[0] < len(numbers):
        _choose(study, numbers[rows[0]])


def mark_in_table(numbers: Sequence[int], number: int | None) -> None:
    """Ticks the row of trial ``number``, before the table is drawn."""
    rows = [numbers.index(number)] if number in numbers else []
    st.session_state[TABLE] = {"selection": {"rows": rows, "columns": [], "cells": []}}


def picker(snapshot: Snapshot, number: int | None) -> None:
    """A list of all trials to choose from, those of the front first."""
    front = [trial.number for trial in reversed(snapshot.standing.front)]
    rest = [trial.number for trial in snapshot.trials if trial.number not in snapshot.front_numbers]
    st.session_state[PICKER] = number

    def take() -> None:
        if st.session_state[PICKER] is not None:
            _choose(snapshot.study.name, st.session_state[PICKER])

    st.selectbox(
        "Trial", [*front, *rest], key=PICKER, format_func=lambda value: _title(snapshot, value), on_change=take
    )


def _title(snapshot: Snapshot, number: int) -> str:
    trial = snapshot.trial(number)
    if trial is None:
        return str(number)
    if trial.state is not TrialState.COMPLETE:
        return f"{number} · {trial.state.value.lower()}"
    kind = snapshot.kind(trial)
    return f"{number} · {trial.values[snapshot.study.metric]:.4f} · {trial.label or kind}"


def _choose(study: str, number: int) -> None:
    st.session_state[_CHOSEN] = (study, number)


def _from_address(snapshot: Snapshot) -> tuple[str, int] | None:
    text = st.query_params["trial"]
    if text.isascii() and text.isdigit() and snapshot.trial(int(text)) is not None:
        return snapshot.study.name, int(text)
    st.warning(f"Study {plain(snapshot.study.name)} has no trial {plain(repr(text))}.")
    return None


def _selected(key: str) -> dict[str, Any]:
    state = st.session_state.get(key) or {}
    return dict(state.get("selection") or {})
