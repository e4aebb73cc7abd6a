"""The door of a dashboard that other machines can reach: nothing is shown before the password is given."""

from __future__ import annotations

import hmac
import os
import time

import streamlit as st

from dashboard.launch import PASSWORD

SECONDS_BETWEEN_TRIES = 1.0


def is_open() -> bool:
    """Whether this session may see anything; shows the question for the password where not."""
    password = os.environ.get(PASSWORD)
    if not password or st.session_state.get("let_in") is True:
        return True
    st.title("AutoPEFT")
    with st.form("door"):
        given = st.text_input("Password", type="password")
        asked = st.form_submit_button("Enter", type="primary")
    if asked:
        time.sleep(SECONDS_BETWEEN_TRIES)
        if hmac.compare_digest(given.encode(), password.encode()):
            st.session_state["let_in"] = True
            st.rerun()
        st.error("That is not the password.")
    return False
