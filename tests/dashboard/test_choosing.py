"""Choosing a trial: by link, rule, list, number, point; the address follows."""

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import queries

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_a_link_restores_study_and_trial(make_record, open_page, headings):
    make_record("first", count=6, finished=13)
    make_record("second", count=6, finished=13)
    for name in ("front", "trial"):
        page = open_page(name, study="first", trial=2)
        assert page.selectbox(key="study").value == "first"
        assert headings(page)[1] == "Trial 2"
        assert page.query_params["trial"] in ("2", ["2"])


def test_a_link_restores_rule_and_budget(make_record, address, open_page, shown, headings):
    make_record(count=12, finished=19)
    page = open_page(rule="cheapest-within", within="0.5")
    front = queries.board(address, "aspects-1").front
    assert f"cheapest-within: trial {front[0].number}" in shown(page)
    assert headings(page)[1] == f"Trial {front[0].number}"


def test_a_rule_chooses_its_trial_and_names_ties(make_record, address, open_page, shown, headings):
    make_record(count=12, finished=19)
    page = open_page(trial=1)
    page.button_group(key="rule").set_value("best").run()
    assert not page.exception
    best = queries.board(address, "aspects-1").front[-1].number
    assert headings(page)[1] == f"Trial {best}"
    assert "Ties, not told apart from it (95 %): trial 11" in shown(page)
    page.selectbox(key="trial_picker").select(1).run()
    assert headings(page)[1] == "Trial 1", "a rule does not hold the choice"


def test_a_stale_link_falls_back_with_a_word(make_record, open_page, shown, headings):
    make_record(count=6, finished=13)
    page = open_page(study="gone", trial="999")
    assert [w.value.replace("\\", "") for w in page.warning] == [
        "There is no study 'gone' in this database; the latest is shown.",
        "Study aspects-1 has no trial '999'.",
    ]
    assert headings(page)[0] == "Pareto front"
    assert "has no trial 99" in shown(open_page("compare", trials="1,99"))
    assert "has no trial" in shown(open_page("compare", trials="<b>"))


def test_a_trial_is_chosen_from_the_list_and_the_address_follows(make_record, open_page, shown, headings):
    make_record(count=6, finished=13)
    page = open_page()
    page.selectbox(key="trial_picker").select(1).run()
    assert not page.exception
    assert headings(page)[1] == "Trial 1"
    assert page.query_params["trial"] in ("1", ["1"])
    assert "LoRA r=1 query+value" in shown(page)


def test_a_number_that_is_typed_chooses_and_a_wrong_one_is_named(make_record, shown):
    def choose(asked):
        import streamlit as st

        from dashboard import queries, selection

        board = queries.board(queries.database(), "aspects-1")
        st.session_state[selection.PICKER] = asked
        selection.from_picker(board)
        st.text(st.session_state.get("chosen"))
        del st.session_state[selection.PICKER]
        selection.picker(board, selection.chosen(board))

    make_record(count=6, finished=13)
    page = AppTest.from_function(choose, default_timeout=300, args=("8",)).run()
    assert not page.exception
    assert page.text[0].value == "('aspects-1', 8)"
    page = AppTest.from_function(choose, default_timeout=300, args=("four <b>",)).run()
    assert not page.exception
    assert "has no trial 'four <b>'" in shown(page)


def test_a_ticked_row_and_a_clicked_point_choose_their_trial():
    def choose():
        import streamlit as st

        from dashboard import selection

        empty = {"rows": [], "columns": [], "cells": []}
        st.session_state[selection.TABLE] = {"selection": {**empty, "rows": [1]}}
        selection.from_table("s", [5, 6])
        st.text(st.session_state["chosen"])
        st.session_state[selection.CHART] = {"selection": {"pick": [{"trial": 9}]}}
        st.text(selection.from_chart("s", "pick"))
        st.text(st.session_state["chosen"])
        st.session_state[selection.CHART] = {"selection": {"pick": []}}
        st.text(selection.from_chart("s", "pick"))
        st.session_state[selection.TABLE] = {"selection": empty}
        selection.from_table("s", [5, 6])
        st.text(st.session_state["chosen"])

    page = AppTest.from_function(choose, default_timeout=300).run()
    assert not page.exception
    assert [text.value for text in page.text] == ["('s', 6)", "True", "('s', 9)", "False", "('s', 9)"]


def test_changing_the_study_forgets_the_trial_of_the_other(make_record, open_page, headings):
    make_record("first", count=6, finished=13)
    make_record("second", count=0)
    page = open_page(study="first", trial=2)
    page.selectbox(key="study").select("second").run()
    assert not page.exception
    assert headings(page) == ["Pareto front"]
    assert "trial" not in page.query_params
