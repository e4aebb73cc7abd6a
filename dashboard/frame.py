"""The frame of every page: which study is shown, what to say when there is none, and the live watch on changes."""

from __future__ import annotations

import re

import streamlit as st

from autopeft.errors import AutopeftError
from dashboard import queries
from dashboard.queries import Snapshot

REFRESH_SECONDS = 3

_MARKDOWN = re.compile(r"([\\\\`*_{}\[\]()<>#+.!|$~:-])")


def chosen_study() -> Snapshot | None:
    """The study that the sidebar or the address names; None, after saying why, where there is nothing to show."""
    try:
        url = queries.database()
        names = queries.study_names(url)
        if not names:
            _watch(None)
            st.info("The database holds no study yet. Start one with `autopeft search`; it appears here by itself.")
            return None
        name = _picked(names)
        snapshot = queries.snapshot(url, name)
    except AutopeftError as error:
        _watch(None)
        st.error(plain(str(error)), icon=":material/database_off:")
        st.caption("This page looks again every few seconds.")
        return None
    _watch(snapshot)
    return snapshot


def plain(text: str) -> str:
    """``text`` without meaning in Streamlit's Markdown."""
    return _MARKDOWN.sub(r"\\\1", text)


def is_dark() -> bool:
    """Whether the page is shown in the dark theme."""
    return bool(st.context.theme.type == "dark")


def _picked(names: list[str]) -> str:
    """The name picked in the sidebar; the address names the first, and follows."""
    asked = st.query_params.get("study")
    if "study" not in st.session_state and asked is not None:
        if asked in names:
            st.session_state["study"] = asked
        else:
            st.warning(f"There is no study {plain(repr(asked))} in this database; the latest is shown.")
    if st.session_state.get("study") not in names:
        st.session_state["study"] = names[0]
    name = str(st.sidebar.selectbox("Study", names, key="study", persist_state="session"))
    st.query_params["study"] = name
    return name


def _watch(shown: Snapshot | None) -> None:
    """Looks every few seconds whether anything has changed, and shows the page anew if so."""

    def look() -> None:
        if _state(shown) != before:
            st.rerun()

    before = _state(shown) if shown is None else (shown.revision, True)
    with st.sidebar:
        st.fragment(look, run_every=REFRESH_SECONDS)()


def _state(shown: Snapshot | None) -> tuple[int, bool]:
    """What a change would show in: the study's revision, or the number of studies, and whether they can be read."""
    try:
        url = queries.database()
        if shown is None:
            return len(queries.study_names(url)), True
        return queries.revision(url, shown.study.name), True
    except AutopeftError:
        return 0, False
