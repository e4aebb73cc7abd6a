"""The compare page: two to four trials, their values with error bars, and a diff map of their plans."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from autopeft.choices import line_texts
from autopeft.comparing import compare
from autopeft.score_sheet import contrast_map, html_contrast, html_sheet
from autopeft.score_sheet.contrast import MOST
from dashboard import frame, queries, selection
from dashboard.board import Board, said
from dashboard.frame import guarded, plain

_KEY = "compared"


@guarded
def page() -> None:
    """The whole page."""
    st.title("Compare")
    board = frame.chosen_board()
    if board is None:
        return
    numbers = _chosen(board)
    if len(numbers) < 2:
        st.info("Choose two to four trials: their values side by side, and a map of where their plans differ.")
        return
    url, name = queries.database(), board.study.name
    plans = queries.configurations(board, url, tuple(numbers))
    names = [f"trial {number}" for number in numbers]
    _values(board, numbers)
    cells = contrast_map({f"trial {number}": plans[number] for number in numbers}, board.study.backbone)
    st.subheader("Where their plans differ")
    if cells.rows:
        st.html(html_contrast(cells, names))
    st.caption(f"{cells.differing:,} of {sum(map(len, cells.rows)):,} places differ.")
    st.subheader("Score sheets")
    learned = queries.details(board, url, tuple(numbers))
    for number in numbers:
        st.html(html_sheet(plans[number], board.study.backbone, caption=f"Trial {number}", details=learned.get(number)))
    shown = " ".join(map(str, numbers))
    st.code(f"autopeft compare {shown} --study {name}", language=None)


def _chosen(board: Board) -> list[int]:
    """The trials to compare: as the session has them, else the address, else the two best of the front."""
    held = st.session_state.get(_KEY, ("", ()))
    if held[0] != board.study.name:
        held = (board.study.name, _from_address(board))
    known = [number for number in held[1] if number in board.by_number]
    st.session_state["compare_picker"] = known

    def take() -> None:
        asked = [int(one) for one in st.session_state["compare_picker"] if str(one).isdecimal()]
        st.session_state[_KEY] = (board.study.name, tuple(dict.fromkeys(asked))[:MOST])

    st.multiselect(
        "Trials to compare (two to four; type a number)",
        selection.listed(board, *known),
        key="compare_picker",
        max_selections=MOST,
        format_func=lambda number: selection.title(board, number),
        on_change=take,
        accept_new_options=True,
    )
    st.session_state[_KEY] = (board.study.name, tuple(known))
    if known:
        st.query_params["trials"] = ",".join(map(str, known))
    else:
        st.query_params.pop("trials", None)
    return known


def _from_address(board: Board) -> tuple[int, ...]:
    asked = st.query_params.get("trials")
    if asked is None:
        return tuple(trial.number for trial in list(board.front)[::-1][:2])
    numbers = [int(text) for text in asked.split(",") if text.isascii() and text.isdigit()]
    missing = [number for number in numbers if number not in board.by_number]
    if missing or not numbers:
        st.warning(
            f"Study {plain(board.study.name)} has no trial {plain(', '.join(map(str, missing)) or repr(asked))}."
        )
    return tuple(dict.fromkeys(number for number in numbers if number not in missing))[:MOST]


def _values(board: Board, numbers: list[int]) -> None:
    chosen = [board.by_number[number] for number in numbers]
    digests = {one.digest for one in chosen}
    repeats = queries.same_numbers([one.number for one in board.complete if one.digest in digests])
    lines = compare(board.study, chosen, board.glances, queries.marks(board, queries.database(), repeats))
    if all(one is None for line in lines for one in line.estimates):
        st.caption("None of them is measured yet.")
        return
    rows = [[said(line.name), *line_texts(line)] for line in lines]
    table = pd.DataFrame(rows, columns=["measured", *(f"trial {number}" for number in numbers)])
    st.table(table, border="horizontal", hide_index=True, alt="Values of the trials, with standard errors and ties")
    st.caption(
        f"± standard error. “differs” and “tie” are against trial {numbers[0]}, at 95 %, paired over validation rows."
    )
