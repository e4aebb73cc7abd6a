"""The pages, run by AppTest on databases that a search could have left at any moment."""

import json
import sqlite3

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import exporting, queries
from dashboard.launch import APP

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def open_page(**query):
    page = AppTest.from_file(str(APP), default_timeout=30)
    for key, value in query.items():
        page.query_params[key] = str(value)
    page.run()
    assert not page.exception
    return page


def shown(page):
    return " ".join(str(element.value) for kind in ("markdown", "caption", "info", "warning", "error", "success")
                    for element in getattr(page, kind))  # fmt: skip


def headings(page):
    return [element.value for element in (*page.title, *page.subheader)]


def sheet(page):
    return next(element.proto.body for element in page.get("html") if "score-sheet" in element.proto.body)


def test_a_missing_database_is_one_clear_message(address):
    page = open_page()
    assert "no database" in page.error[0].value.replace("\\", "")
    assert not page.selectbox


def test_an_empty_database_says_how_to_start(make_record, address):
    from autopeft.store import Store

    Store.open(address, create=True).close()
    assert "autopeft search" in open_page().info[0].value


def test_a_database_of_another_version_names_the_way_out(make_record, address, tmp_path):
    make_record()
    with sqlite3.connect(tmp_path / "record.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'from the future'")
    assert "autopeft" in open_page().error[0].value


def test_a_running_study_without_a_finished_trial_shows_no_empty_plot(make_record):
    make_record(count=5, finished=0)
    page = open_page()
    assert "No trial is finished yet: 11 queued, 1 running" in page.info[0].value
    assert page.metric[0].value == "0 / 12"
    assert not page.get("arrow_vega_lite_chart")


def test_a_study_that_only_failed_says_so_and_shows_the_reason(make_record):
    make_record(count=1, finished=8, failing=range(8))
    page = open_page(trial=3)
    assert "8 diverged" in page.warning[0].value
    assert "loss is nan after step 3" in page.error[0].value


def test_a_finished_study_shows_its_front_and_its_best_trial(make_record, address):
    make_record(count=12, finished=19)
    page = open_page()
    standing = queries.snapshot(address, "aspects-1").standing
    best = standing.front[-1]
    assert headings(page) == ["Pareto front", f"Trial {best.number}"]
    assert [metric.value for metric in page.metric[:3]] == [
        "19 / 19",
        str(len(standing.front)),
        f"{best.values['accuracy']:.4f}",
    ]
    assert "<table>" in sheet(page)
    assert len(page.dataframe[0].value) == len(standing.front)


def test_a_link_restores_study_and_trial(make_record):
    make_record("first", count=6, finished=13)
    make_record("second", count=6, finished=13)
    page = open_page(study="first", trial=2)
    assert page.selectbox(key="study").value == "first"
    assert headings(page)[1] == "Trial 2"
    assert page.query_params["trial"] in ("2", ["2"])


def test_a_stale_link_falls_back_with_a_word(make_record):
    make_record(count=6, finished=13)
    page = open_page(study="gone", trial="999")
    assert [w.value.replace("\\", "") for w in page.warning] == [
        "There is no study 'gone' in this database; the latest is shown.",
        "Study aspects-1 has no trial '999'.",
    ]
    assert headings(page)[0] == "Pareto front"


def test_a_trial_is_chosen_from_the_list_and_the_address_follows(make_record):
    make_record(count=6, finished=13)
    page = open_page()
    page.selectbox(key="trial_picker").select(1).run()
    assert not page.exception
    assert headings(page)[1] == "Trial 1"
    assert page.query_params["trial"] in ("1", ["1"])
    assert "LoRA r=1 query+value" in shown(page).replace("\\", "")


def test_a_ticked_row_and_a_clicked_point_choose_their_trial():
    def choose():
        import streamlit as st

        from dashboard import selection

        empty = {"rows": [], "columns": [], "cells": []}
        st.session_state[selection.TABLE] = {"selection": {**empty, "rows": [1]}}
        selection.from_table("s", [5, 6])
        st.text(st.session_state["chosen"])
        st.session_state[selection.CHART] = {"selection": {"pick": [{"trial": 9}]}}
        selection.from_chart("s", "pick")
        st.text(st.session_state["chosen"])
        st.session_state[selection.CHART] = {"selection": {"pick": []}}
        selection.from_chart("s", "pick")
        st.session_state[selection.TABLE] = {"selection": empty}
        selection.from_table("s", [5, 6])
        st.text(st.session_state["chosen"])

    page = AppTest.from_function(choose, default_timeout=30).run()
    assert not page.exception
    assert [text.value for text in page.text] == ["('s', 6)", "('s', 9)", "('s', 9)"]


def test_changing_the_study_forgets_the_trial_of_the_other(make_record):
    make_record("first", count=6, finished=13)
    make_record("second", count=0)
    page = open_page(study="first", trial=2)
    page.selectbox(key="study").select("second").run()
    assert not page.exception
    assert headings(page) == ["Pareto front"]
    assert "trial" not in page.query_params


def test_an_export_offers_what_the_command_wrote(make_record, address, monkeypatch):
    make_record(count=6, finished=13)
    asked = []

    def export(*arguments):
        asked.append(arguments)
        return exporting.Packed("aspects-1-1-peft.zip", b"PK", ("README.md", "verify.json"))

    monkeypatch.setattr(exporting, "export", export)
    page = open_page(trial=1)
    assert "autopeft export 1 --to peft" in page.code[0].value
    page.button(key="export").click().run()
    assert not page.exception
    assert asked == [(address, "aspects-1", 1, "peft")]
    assert "2 files" in page.success[0].value
    assert page.get("download_button")


def test_an_export_that_fails_says_why(make_record, monkeypatch):
    from autopeft.errors import ExportError

    make_record(count=6, finished=13)

    def export(*arguments):
        raise ExportError("verification failed: outputs differ by 0.1")

    monkeypatch.setattr(exporting, "export", export)
    page = open_page(trial=1)
    page.button(key="export").click().run()
    assert not page.exception
    assert "verification failed" in page.error[0].value
    assert not page.get("download_button")


def test_names_from_the_record_are_shown_as_they_are_written(make_record):
    make_record("a_b_c-1")
    page = open_page()
    assert page.selectbox(key="study").value == "a_b_c-1"


def test_all_studies_are_listed(make_record, address):
    make_record("first", count=6, finished=13)
    make_record("second")

    def studies():
        from dashboard.views import studies

        studies.page()

    page = AppTest.from_function(studies, default_timeout=30).run()
    assert not page.exception
    assert list(page.dataframe[0].value["study"]) == ["second", "first"]
    assert json.loads(page.dataframe[0].proto.columns)
