"""Boards: right, kept while nothing changes, moved on by what has changed, and clear errors where there is nothing."""

import pytest

from autopeft.errors import NotFoundError, StoreError
from autopeft.fidelity import Fidelity
from autopeft.store import Store
from autopeft.study import TrialState
from dashboard import queries


def test_a_board_tells_the_front_from_the_control_and_the_head(make_record, address):
    make_record(count=12, finished=16)
    board = queries.board(address, "aspects-1")
    kinds = {glance.number: board.kind(glance) for glance in board.complete}
    assert kinds[0] == "head only"
    assert {kinds[number] for number in range(1, 7)} == {"control"}
    assert board.front_numbers == {number for number, kind in kinds.items() if kind == "front"}
    assert (len(board.complete), board.expected) == (16, 19)
    assert 999 not in board.by_number


def test_a_study_whose_trials_wait_for_promotion_is_not_over(make_record, address):
    ladder = Fidelity(80, 4, 16, (20, 40))
    make_record("climbing-1", count=4, finished=9, fidelity=ladder)
    make_record("climbed-1", count=4, finished=11, fidelity=ladder)
    climbing, climbed = (queries.board(address, name) for name in ("climbing-1", "climbed-1"))
    assert (climbing.finished, climbing.expected, climbing.is_over) == (9, 11, False)
    assert climbed.states == {TrialState.COMPLETE: 7, TrialState.PAUSED: 4}
    assert (climbed.finished, climbed.expected, climbed.is_over) == (11, 11, False)  # half of the four go on


def test_a_board_is_read_once_a_revision(make_record, address):
    make_record(count=4, finished=2)
    first = queries.board(address, "aspects-1")
    assert queries.board(address, "aspects-1") is first
    with Store.open(address) as store:
        store.stop("aspects-1")
    assert queries.board(address, "aspects-1") is not first


def test_a_board_that_moved_on_is_the_one_that_would_be_read_anew(make_record, address, measured, monkeypatch):
    from autopeft.store import overlook
    from autopeft.study import FrontRecord

    monkeypatch.setattr(overlook, "OVERLAP", 0)
    make_record(count=8, finished=3)
    before = queries.board(address, "aspects-1")
    with Store.open(address) as store:
        for _ in range(3):
            order = store.lease("w0", "aspects-1")
            store.report(order.trial_id, order.attempt, measured(order))
        store.record_front("aspects-1", FrontRecord((), 0.5, 6, 30.0))
        store.set_target("aspects-1", 99, None)
    moved = queries.board(address, "aspects-1")
    assert moved is not before
    queries._boards.clear()
    anew = queries.board(address, "aspects-1")
    assert (moved.glances, moved.volumes, moved.study) == (anew.glances, anew.volumes, anew.study)
    assert moved.study.trials == 99


def test_the_last_board_is_kept_for_when_the_database_is_away(make_record, address, tmp_path):
    make_record(count=4, finished=2)
    board = queries.board(address, "aspects-1")
    (tmp_path / "record.db").unlink()
    with pytest.raises(NotFoundError):
        queries.board(address, "aspects-1")
    assert queries.last_board(address, "aspects-1") is board
    assert queries.last_board(address, "other") is None


def test_another_database_in_the_same_place_is_noticed(make_record, address, tmp_path):
    make_record("before")
    assert queries.study_names(address) == ["before"]
    for file in tmp_path.glob("record.db*"):
        file.rename(file.with_name(f"old-{file.name}"))
    with pytest.raises(NotFoundError, match="no database"):
        queries.study_names(address)
    make_record("after")
    assert queries.study_names(address) == ["after"]


def test_a_file_that_is_no_database_is_named(address, tmp_path):
    (tmp_path / "record.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match=r"record\.db"):
        queries.study_names(address)
