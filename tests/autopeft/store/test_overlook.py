"""Looking at much of the record at once: the same truth as the reader's, lighter, and only what has changed."""

import pytest

from autopeft.errors import NotFoundError
from autopeft.store import Store, overlook
from autopeft.store.overlook import Overlook
from autopeft.study import FrontRecord, TrialState


@pytest.fixture
def look(url, filled):
    with Overlook.open(url) as opened:
        yield opened


@pytest.fixture
def done(filled, measured):
    """Reports the next queued trial as finished."""
    filled.register_worker("w0", "host", "cpu", 1, {})

    def finish(**values):
        order = filled.lease("w0", "aspects")
        filled.report(order.trial_id, order.attempt, measured(**values))
        return order.number

    return finish


def test_a_glance_agrees_with_the_trial(look, done, filled):
    done(accuracy=0.75)
    order = filled.lease("w0", "aspects")
    filled.report_diverged(order.trial_id, order.attempt, "loss is nan\nsecond line")
    trials, glances = look.trials("aspects"), look.glances("aspects")
    for trial, glance in zip(trials, glances, strict=True):
        for name in ("number", "digest", "state", "origin", "label", "replicate", "rung", "attempt", "owner", "values"):
            assert getattr(glance, name) == getattr(trial, name)
    assert glances[1].error == "loss is nan"
    assert 0 <= glances[0].seconds < 60
    assert glances[2].seconds is None


def test_only_what_has_changed_is_read_anew(look, done, monkeypatch):
    monkeypatch.setattr(overlook, "OVERLAP", 0)
    before = look.revision("aspects")
    assert look.glances("aspects", before) == []
    number = done()
    assert [glance.number for glance in look.glances("aspects", before)] == [number]
    assert [glance.state for glance in look.glances("aspects", before)] == [TrialState.COMPLETE]


def test_configurations_marks_and_details_come_by_number(look, done):
    number = done()
    assert look.configurations("aspects", [0, 2, 99]) == {
        trial.number: trial.configuration for trial in look.trials("aspects") if trial.number != 1
    }
    assert look.marks("aspects", [0, 1, 2]) == {number: (1, 0, 1)}
    assert look.details("aspects", [0, 1, 2]) == {number: {"importance": [0.5, -0.25]}}
    assert look.marks("aspects", []) == {}


def test_more_numbers_than_one_query_takes(look, monkeypatch):
    monkeypatch.setattr(overlook, "CHUNK", 2)
    assert sorted(look.configurations("aspects", [0, 1, 2])) == [0, 1, 2]


def test_the_hypervolume_over_time_goes_on_where_it_was_read(look, filled):
    filled.record_front("aspects", FrontRecord((0,), 0.25, 1, 3.0))
    first = look.volumes("aspects")
    assert [(volume.completed, volume.seconds, volume.hypervolume) for volume in first] == [(1, 3.0, 0.25)]
    filled.record_front("aspects", FrontRecord((0, 1), 0.5, 2, 6.0))
    assert [volume.hypervolume for volume in look.volumes("aspects", first[-1].id)] == [0.5]


def test_studies_are_listed_with_their_counts(look, done, filled, make_study):
    done()
    filled.create_study(make_study("later"))
    later, first = look.study_lines()
    assert (later.study.name, later.counts, later.hypervolume, later.front_size) == ("later", {}, None, 0)
    assert first.counts == {TrialState.COMPLETE: 1, TrialState.QUEUED: 2}
    filled.record_front("aspects", FrontRecord((0,), 0.25, 1, 3.0))
    assert (look.study_lines()[1].hypervolume, look.study_lines()[1].front_size) == (0.25, 1)


def test_attempts_that_brought_nothing_and_what_workers_finished(look, done, filled):
    done()
    order = filled.lease("w0", "aspects")
    filled.report_diverged(order.trial_id, order.attempt, "loss is nan")
    [(number, attempt)] = look.retried("aspects")
    assert (number, attempt.reason, attempt.worker) == (order.number, "loss is nan", "w0")
    assert look.finished_by("aspects") == {"w0": 1}


def test_a_study_that_is_not_there_is_named(look):
    for read in (look.glances, look.volumes, look.retried, look.finished_by):
        with pytest.raises(NotFoundError, match="no study 'x'"):
            read("x")


def test_nothing_can_be_written_through_it(look):
    assert not isinstance(look, Store)
    assert not hasattr(look, "report")
