"""The frame of every page: which study is shown, what to say when there is none, and the live watch on changes."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from typing import Any

import streamlit as st

from autopeft.errors import AutopeftError
from dashboard import queries
from dashboard.board import Board

REFRESH_SECONDS = 3

PAGES = "pages"
"""Key of the session under which ``dashboard.app`` leaves its pages, for links between them."""

_MARKDOWN = re.compile(r"([\\\\`*_{}\[\]()<>#+.!|$~:&-])")


def guarded(page: Callable[[], None]) -> Callable[[], None]:
    """``page``, which ends with a word where the database goes away while it is read."""

    @wraps(page)
    def shown() -> None:
        try:
            page()
        except AutopeftError as error:
            st.caption(f"The rest of this page cannot be read just now: {plain(str(error))}")

    return shown


def chosen_board() -> Board | None:
    """The study that the sidebar or the address names; None, after saying why, where there is nothing to show.

    While the database is away the study is shown as it was last read, under a word that says so.
    """
    url = queries.database()
    try:
        names = queries.study_names(url)
        if not names:
            _watch(None)
            st.info("The database holds no study yet. Start one with `autopeft search`; it appears here by itself.")
            return None
        board = queries.board(url, _picked(names))
    except AutopeftError as error:
        held = queries.last_board(url, str(st.session_state.get("study", "")))
        _watch(held, readable=False)
        st.error(plain(str(error)), icon=":material/database_off:")
        st.caption(
            "This page looks again every few seconds."
            + (" Until then it shows the study as it was last read." if held else "")
        )
        return held
    _watch(board)
    return board


def plain(text: str) -> str:
    """``text`` without meaning in Streamlit's Markdown."""
    return _MARKDOWN.sub(r"\\\1", text)


def is_dark() -> bool:
    """Whether the page is shown in the dark theme."""
    return bool(st.context.theme.type == "dark")


def link(page: str, label: str, icon: str | None = None) -> None:
    """A link to another page of the dashboard, where its pages are known."""
    pages = st.session_state.get(PAGES, {})
    if page in pages:
        st.page_link(pages[page], label=label, icon=icon)


def go(page: str) -> None:
    """Shows another page, where its pages are known."""
    pages = st.session_state.get(PAGES, {})
    if page in pages:
        st.switch_page(pages[page])


def chart(spec: dict[str, Any] | None, words: str, **more: Any) -> None:
    """A figure with a description for those who do not see it; nothing for None."""
    if spec is not None:
        st.vega_lite_chart(spec=spec, width="stretch", alt=words, **more)


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


def _watch(shown: Board | None, readable: bool = True) -> None:
    """Looks every few seconds whether anything has changed, and shows the page anew if so."""

    def look() -> None:
        if _state(shown) != before:
            st.rerun()

    before = (shown.revision if shown else 0, readable) if shown or not readable else _state(None)
    with st.sidebar:
        st.fragment(look, run_every=REFRESH_SECONDS)()


def _state(shown: Board | None) -> tuple[int, bool]:
    """What a change would show in: the study's revision, or the number of studies, and whether they can be read."""
    try:
        url = queries.database()
        if shown is None:
            return len(queries.study_names(url)), True
        return queries.revision(url, shown.study.name), True
    except AutopeftError:
        return shown.revision if shown else 0, False
