"""Which trial is chosen: by a click in the chart, a row of the table, the list of trials, or the address.

One value in the session is the truth; each way of choosing writes it, and all of them show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import streamlit as st

from autopeft.study import Origin, TrialState
from dashboard.board import Board, shown_value
from dashboard.frame import plain

_CHOSEN = "chosen"
CHART, TABLE, PICKER = "front_chart", "trial_table", "trial_picker"


def chosen(board: Board) -> int | None:
    """Number of the chosen trial: as the session has it, else the address, else the best of the front."""
    held = st.session_state.get(_CHOSEN)
    if held is None and "trial" in st.query_params:
        held = _from_address(board)
    if held is not None and held[0] == board.study.name and held[1] in board.by_number:
        st.session_state[_CHOSEN] = held
        st.query_params["trial"] = str(held[1])
        return int(held[1])
    st.query_params.pop("trial", None)
    st.session_state.pop(_CHOSEN, None)
    return board.front[-1].number if board.front else None


def choose(study: str, number: int) -> None:
    """Makes trial ``number`` the chosen one."""
    st.session_state[_CHOSEN] = (study, number)


def from_chart(study: str, parameter: str, key: str = CHART) -> bool:
    """Takes over a click on a point, and says whether there was one; a click beside the points changes nothing."""
    picked = _selected(key).get(parameter) or []
    if picked:
        choose(study, int(picked[0]["trial"]))
    return bool(picked)


def from_table(study: str, numbers: Sequence[int]) -> None:
    """Takes over the row that was ticked; ``numbers`` are the trials in the order of the rows."""
    rows = _selected(TABLE).get("rows") or []
    if rows and rows[0] < len(numbers):
        choose(study, numbers[rows[0]])


def from_picker(board: Board) -> None:
    """Takes over what was picked from the list or typed there; what is no trial is kept to be named."""
    asked = st.session_state[PICKER]
    if asked is None:
        return
    if str(asked).isascii() and str(asked).isdecimal() and int(asked) in board.by_number:
        choose(board.study.name, int(asked))
    else:
        st.session_state["no_such_trial"] = str(asked)


def mark_in_table(numbers: Sequence[int], number: int | None) -> None:
    """Ticks the row of trial ``number``, before the table is drawn."""
    rows = [numbers.index(number)] if number in numbers else []
    st.session_state[TABLE] = {"selection": {"rows": rows, "columns": [], "cells": []}}


def picker(board: Board, number: int | None) -> None:
    """A list to choose from, those of the front first, then the control; any other number can be typed."""
    st.session_state[PICKER] = number
    st.selectbox(
        "Trial (or type its number)",
        listed(board, number),
        key=PICKER,
        format_func=lambda value: title(board, value),
        on_change=partial(from_picker, board),
        accept_new_options=True,
    )
    unknown = st.session_state.pop("no_such_trial", None)
    if unknown is not None:
        st.warning(f"Study {plain(board.study.name)} has no trial {plain(repr(unknown))}.")


def listed(board: Board, *more: int | None) -> list[int]:
    """Trials worth a place in a list: the front, the best first, what it is compared with, those that run or failed."""
    front = [trial.number for trial in reversed(board.front)]
    compared = (Origin.CONTROL, Origin.REFERENCE)
    control = [glance.number for glance in board.glances if glance.origin in compared][:60]
    quiet = (TrialState.COMPLETE, TrialState.QUEUED, TrialState.CANCELLED)
    others = [glance.number for glance in board.glances if glance.state not in quiet][-40:]
    return list(dict.fromkeys([*front, *control, *others, *(number for number in more if number is not None)]))


def title(board: Board, number: object) -> str:
    """A trial in a list."""
    glance = board.by_number.get(int(str(number))) if str(number).isdecimal() else None
    if glance is None:
        return str(number)
    metric = board.study.metric
    if glance.state is not TrialState.COMPLETE or metric not in glance.values:
        return f"{glance.number} · {glance.state.value.lower()}"
    return f"{glance.number} · {shown_value(metric, glance.values[metric])} · {glance.label or board.kind(glance)}"


def _from_address(board: Board) -> tuple[str, int] | None:
    text = st.query_params["trial"]
    if text.isascii() and text.isdigit() and int(text) in board.by_number:
        return board.study.name, int(text)
    st.warning(f"Study {plain(board.study.name)} has no trial {plain(repr(text))}.")
    return None


def _selected(key: str) -> dict[str, Any]:
    state = st.session_state.get(key) or {}
    return dict(state.get("selection") or {})
