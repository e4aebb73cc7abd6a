"""The pages, run by AppTest on databases that a search could have left at any moment."""

import json
import re
import sqlite3

import pytest
from streamlit.testing.v1 import AppTest

from autopeft.fidelity import Fidelity
from autopeft.store import Store
from dashboard import queries
from dashboard.launch import APP, PASSWORD

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


PAGES = ("overview", "front", "trial", "compare", "layers", "health", "workers", "studies")


@pytest.fixture(
    params=["missing", "empty", "no trial", "running", "failed", "finished", "three objectives", "one trial"]
)
def state(request, make_record, address, three_objectives):
    """A database in each of the states that a search can leave it in."""
    name = request.param
    if name == "empty":
        Store.open(address, create=True).close()
    elif name == "no trial":
        make_record()
    elif name == "running":
        make_record(count=5, finished=9)
    elif name == "failed":
        make_record(count=1, finished=8, failing=range(8))
    elif name == "finished":
        make_record(count=12, finished=19)
    elif name == "three objectives":
        make_record(count=12, finished=19, objectives=three_objectives)
    elif name == "one trial":
        make_record(count=1, finished=8)
    return name


@pytest.mark.parametrize("name", PAGES)
def test_every_page_shows_something_in_every_state(state, name, open_page, shown, headings, html, charts):
    page = open_page(name)
    assert headings(page)
    assert shown(page) or page.dataframe or html(page) or page.get("arrow_data_frame")
    for chart in charts(page):
        layers = json.loads(chart.proto.spec)["layer"]
        names = {dataset.name for dataset in chart.proto.datasets}
        assert layers
        assert {layer["data"]["name"] for layer in layers} <= names
    if name in ("overview", "front") and state in ("running", "finished", "three objectives", "one trial"):
        assert charts(page)
    if state in ("missing", "empty", "no trial", "failed"):
        assert not charts(page)


def test_the_app_opens_with_the_overview_and_links_to_every_page(make_record, headings):
    make_record(count=6, finished=13)
    page = AppTest.from_file(str(APP), default_timeout=300).run()
    assert not page.exception
    assert headings(page)[0] == "Overview"
    assert page.metric[0].value == "13 / 13"


def test_a_missing_database_is_one_clear_message(address, open_page):
    page = open_page()
    assert "no database" in page.error[0].value.replace("\\", "")
    assert not page.selectbox


def test_an_empty_database_says_how_to_start(address, open_page):
    Store.open(address, create=True).close()
    assert "autopeft search" in open_page().info[0].value


def test_a_database_of_another_version_names_the_way_out(make_record, tmp_path, open_page):
    make_record()
    with sqlite3.connect(tmp_path / "record.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'from the future'")
    assert "autopeft" in open_page().error[0].value


def test_a_database_that_goes_away_leaves_the_study_as_it_was_and_comes_back(make_record, tmp_path, open_page, shown):
    make_record(count=6, finished=13)
    page = open_page("overview")
    (tmp_path / "record.db").rename(tmp_path / "elsewhere.db")
    page.run()
    assert not page.exception
    assert "as it was last read" in shown(page)
    assert page.metric[0].value == "13 / 13"
    (tmp_path / "elsewhere.db").rename(tmp_path / "record.db")
    page.run()
    assert not page.error
    assert page.metric[0].value == "13 / 13"


def test_a_running_study_without_a_finished_trial_shows_no_empty_plot(make_record, open_page, charts):
    make_record(count=5, finished=0)
    page = open_page()
    assert "No trial is finished yet: 11 queued, 1 running" in page.info[0].value
    assert not charts(page)


def test_a_study_that_only_failed_says_so_and_shows_the_reason(make_record, open_page):
    make_record(count=1, finished=8, failing=range(8))
    page = open_page(trial=3)
    assert "8 diverged" in page.warning[0].value
    assert "loss is nan after step 3" in page.error[0].value


def test_a_finished_study_shows_its_front_and_its_best_trial(make_record, address, open_page, shown, headings, html):
    make_record(count=12, finished=19)
    page = open_page()
    front = queries.board(address, "aspects-1").front
    assert headings(page) == ["Pareto front", f"Trial {front[-1].number}"]
    assert any("<table>" in body for body in html(page))
    assert len(page.dataframe[0].value) == len(front)
    assert "On the front: no searched trial dominates it" in shown(page)
    assert "±" in shown(page)


def test_the_overview_tells_the_figures_of_the_study(make_record, address, open_page):
    make_record(count=12, finished=19)
    page, front = open_page("overview"), queries.board(address, "aspects-1").front
    values = [metric.value for metric in page.metric[:3]]
    assert values == ["19 / 19", str(len(front)), f"{front[-1].values['accuracy']:.4f}"]


def test_a_study_is_over_when_nobody_goes_on_from_a_rung(make_record, climb, open_page, shown):
    study = make_record(count=4, finished=11, fidelity=Fidelity(80, 4, 16, (20, 40)))
    page = open_page("overview")
    assert "Nothing runs just now: 4 paused, 7 complete." in shown(page), "two of the four are to go on"
    climb(study)
    page = open_page("overview")
    assert page.metric[0].value == "11 / 11"
    assert "Nothing runs." in shown(page)
    assert [text for text in (str(bar.proto.text) for bar in page.get("progress")) if "target reached" in text]
    assert open_page("studies").dataframe[0].value["finished"][0].startswith("11 of 11 asked")


def test_two_trials_are_compared_with_a_diff_map(make_record, open_page, shown, html):
    make_record(count=6, finished=13)
    page = open_page("compare", trials="1,6")
    assert any("contrast" in body and "trial 1 → trial 6" in body for body in html(page))
    assert sum("score-sheet" in body and "contrast" not in body for body in html(page)) == 2
    assert "autopeft compare 1 6 --study aspects-1" in page.code[0].value
    page.multiselect(key="compare_picker").set_value([1]).run()
    assert not page.exception
    assert "Choose two to four" in shown(page)


def test_the_layers_page_tells_what_a_band_of_the_front_agrees_on(make_record, address, open_page, html):
    make_record(count=30, finished=37)
    page, front = open_page("layers"), queries.board(address, "aspects-1").front
    assert f"share of {len(front)} members" in html(page)[0]
    assert "importance (mean of" in html(page)[0]
    band = page.button_group(key="band")
    band.set_value(band.options[1]).run()
    assert not page.exception
    assert f"share of {len(front)} members" not in html(page)[0]


def test_search_health_speaks_of_everything_that_can_go_wrong(make_record, open_page, shown, charts):
    make_record(count=30, finished=37, failing=(9, 12))
    page = open_page("health")
    text = shown(page)
    assert "variance" in text
    assert "searched trials" in text
    assert "No plan has been repeated" in text
    assert len(charts(page)) == 3
    assert any("loss is nan after step 3" in str(frame.value.to_dict()) for frame in page.dataframe)


def test_workers_are_listed_with_what_brought_nothing(make_record, open_page):
    make_record(count=6, finished=13, failing=(4,))
    page = open_page("workers")
    assert list(page.dataframe[0].value["worker"]) == ["w0"]
    assert list(page.dataframe[1].value["trial"]) == [4]


def test_nothing_from_the_record_is_rendered_as_markup(make_record, tmp_path, open_page, html):
    make_record(count=6, finished=13, failing=(4,))
    bad = "<img src=x onerror=alert(1)> **bold** [x](javascript:alert(1)) $y$ :red[z]"
    with sqlite3.connect(tmp_path / "record.db") as connection:
        connection.execute("UPDATE trial SET label = ?, error = ? WHERE number IN (1, 4)", (bad, bad))
    for name, query in (
        ("front", {"trial": 1}),
        ("trial", {"trial": 4}),
        ("health", {}),
        ("compare", {"trials": "1,6"}),
    ):
        page = open_page(name, **query)
        rendered = [str(element.value) for kind in ("markdown", "caption", "error") for element in getattr(page, kind)]
        assert not any("<img" in body for body in html(page))
        for text in rendered:
            assert not re.search(r"(?<!\\)(<img|\*\*bold|\]\(javascript|\$y|:red)", text)


def test_names_from_the_record_are_shown_as_they_are_written(make_record, open_page):
    make_record("a_b_c-1")
    assert open_page().selectbox(key="study").value == "a_b_c-1"


def test_all_studies_are_listed(make_record, open_page):
    make_record("first", count=6, finished=13)
    make_record("second")
    page = open_page("studies")
    assert list(page.dataframe[0].value["study"]) == ["second", "first"]
    assert list(page.dataframe[0].value["open"]) == ["/front?study=second", "/front?study=first"]


def test_behind_a_password_nothing_is_shown_before_it_is_given(make_record, monkeypatch, headings):
    make_record(count=6, finished=13)
    monkeypatch.setenv(PASSWORD, "correct horse battery")
    monkeypatch.setattr("dashboard.views.door.SECONDS_BETWEEN_TRIES", 0)
    page = AppTest.from_file(str(APP), default_timeout=300).run()
    assert headings(page) == ["AutoPEFT"]
    assert not page.metric
    page.text_input[0].set_value("wrong")
    page.button[0].click().run()
    assert "not the password" in page.error[0].value
    page.text_input[0].set_value("correct horse battery")
    page.button[0].click().run()
    assert not page.exception
    assert headings(page)[0] == "Overview"
