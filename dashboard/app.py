"""The dashboard's pages, as Streamlit runs them."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.frame import PAGES
from dashboard.views import compare, door, front, health, layers, overview, studies, trial, workers

# A picture of our own: Streamlit would have the browser fetch a named icon from another host.
ICON = Path(__file__).with_name("icon.svg").read_text(encoding="utf-8")


_STYLE = (
    ".stMainBlockContainer{padding-top:3.2rem}"
    # Streamlit's captions have a contrast of 4.0; 4.5 is wanted.
    '[data-testid="stCaptionContainer"]{opacity:1}'
    '[data-testid="stCaptionContainer"] *{color:light-dark(#4b5563,#aeb6c2)}'
    # Streamlit writes white on the primary colour, which the dark theme's is too bright for.
    '[data-testid="stBaseButton-primary"]:not(:disabled) *{color:light-dark(#ffffff,#06201d)}'
    '[data-testid="stMultiSelectTagsContainer"] [role="group"] *{color:light-dark(#ffffff,#06201d)}'
)


def main() -> None:
    """Shows the page that the address names."""
    st.set_page_config(page_title="AutoPEFT", page_icon=ICON, layout="wide")
    st.html(f"<style>{_STYLE}</style>")
    if not door.is_open():
        return
    pages = [
        st.Page(overview.page, title="Overview", icon=":material/dashboard:", default=True),
        st.Page(front.page, title="Front", icon=":material/stacked_line_chart:", url_path="front"),
        st.Page(trial.page, title="Trial", icon=":material/science:", url_path="trial"),
        st.Page(compare.page, title="Compare", icon=":material/compare:", url_path="compare"),
        st.Page(layers.page, title="Layers", icon=":material/layers:", url_path="layers"),
        st.Page(health.page, title="Search health", icon=":material/monitor_heart:", url_path="health"),
        st.Page(workers.page, title="Workers", icon=":material/engineering:", url_path="workers"),
        st.Page(studies.page, title="Studies", icon=":material/list:", url_path="studies"),
    ]
    # the first page's own address is that of the dashboard; this one makes /overview a link like the others
    again = st.Page(overview.page, title="Overview", url_path="overview", visibility="hidden")
    names = ("overview", "front", "trial", "compare", "layers", "health", "workers", "studies")
    st.session_state[PAGES] = dict(zip(names, pages, strict=True))
    st.navigation([*pages, again]).run()


if __name__ == "__main__":
    main()
