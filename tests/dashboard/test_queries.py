"""Snapshots: right, kept while nothing changes, and clear errors where there is nothing to read."""

import pytest

from autopeft.errors import NotFoundError, StoreError
from dashboard import queries


def test_a_snapshot_tells_the_front_from_the_control_and_the_head(make_record, address):
    make_record(count=12, finished=16)
    snapshot = queries.snapshot(address, "aspects-1")
    kinds = {trial.number: snapshot.kind(trial) for trial in snapshot.complete}
    assert kinds[0] == "head only"
    assert {kinds[number] for number in range(1, 7)} == {"control"}
    assert snapshot.front_numbers == {number for number, kind in kinds.items() if kind == "front"}
    assert (len(snapshot.complete), snapshot.expected) == (16, 19)
    assert snapshot.trial(999) is None


def test_a_snapshot_is_read_once_a_revision(make_record, address):
    from autopeft.store import Store

    make_record(count=4, finished=2)
    first = queries.snapshot(address, "aspects-1")
    assert queries.snapshot(address, "aspects-1") is first
    with Store.open(address) as store:
        store.stop("aspects-1")
    assert queries.snapshot(address, "aspects-1") is not first


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
