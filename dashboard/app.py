"""The dashboard's pages, as Streamlit runs them."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.views import front, studies

# A picture of our own: Streamlit would have the browser fetch a named icon from another host.
ICON = Path(__file__).with_name("icon.svg").read_text(encoding="utf-8")


_STYLE = (
    ".stMainBlockContainer{padding-top:3.2rem}"
    # Streamlit's captions have a contrast of 4.0; 4.5 is wanted.
    '[data-testid="stCaptionContainer"]{opacity:1}'
    '[data-testid="stCaptionContainer"] *{color:light-dark(#4b5563,#aeb6c2)}'
    # Streamlit writes white on the primary colour, which the dark theme's is too bright for.
    '[data-testid="stBaseButton-primary"] *{color:light-dark(#ffffff,#06201d)}'
)


def main() -> None:
    """Shows the page that the address names."""
    st.set_page_config(page_title="AutoPEFT", page_icon=ICON, layout="wide")
    pages = [
        st.Page(front.page, title="Pareto front", icon=":material/stacked_line_chart:", url_path="front", default=True),
        st.Page(studies.page, title="Studies", icon=":material/list:", url_path="studies"),
    ]
    st.html(f"<style>{_STYLE}</style>")
    st.navigation(pages).run()


if __name__ == "__main__":
    main()
