"""The export panel: choose the target, see what would be lost, download what the command writes, copy the command."""

from __future__ import annotations

import streamlit as st

from autopeft.errors import AutopeftError
from dashboard import exporting, queries
from dashboard.board import Board
from dashboard.frame import plain
from search_spaces.configuration import Configuration

_PACKED, _FAILED = "export_packed", "export_failed"

_ORDER = ("peft", "script", "vllm", "trl", "axolotl", "llamafactory", "autopeft")
"""The usual target first."""


def panel(board: Board, number: int, configuration: Configuration) -> None:
    """The panel for a complete trial."""
    study, url = board.study, queries.database()
    targets = [*_ORDER, *(name for name in exporting.TARGETS if name not in _ORDER)]
    target = str(st.selectbox("Export for", targets, key="target", bind="query-params"))
    st.caption(plain(exporting.TARGETS[target]))
    lost = exporting.lost(study, configuration, target)
    lossy = bool(lost) and _lossy(board, configuration, target, lost)
    key = (study.name, number, target, lossy)
    ready = not lost or lossy
    if st.button(
        "Export", type="primary", icon=":material/ios_share:", key="export", width="stretch", disabled=not ready
    ):
        with st.spinner("Writing the files and comparing them with the trained model …"):
            _run(url, key)
    _outcome(key)
    st.code(exporting.shown_command(url, study.name, number, target, lossy), language=None, wrap_lines=True)


def _lossy(board: Board, configuration: Configuration, target: str, lost: tuple[str, ...]) -> bool:
    """Says what would be lost, and whether that is wanted."""
    listed = "; ".join(lost[:6]) + (f"; and {len(lost) - 6} more" if len(lost) > 6 else "")
    st.warning(plain(f"{target} cannot hold: {listed}."), icon=":material/content_cut:")
    if not exporting.can_hold_something(board.study, configuration, target):
        return False
    return bool(st.checkbox("Leave these out (lossy)", key="lossy"))


def _outcome(key: tuple[str, int, str, bool]) -> None:
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
            type="primary",
        )


def _run(url: str, key: tuple[str, int, str, bool]) -> None:
    st.session_state.pop(_PACKED, None)
    st.session_state.pop(_FAILED, None)
    try:
        st.session_state[_PACKED] = (key, exporting.export(url, *key))
    except AutopeftError as error:
        st.session_state[_FAILED] = (key, str(error))
