"""Probes in the record, on both databases."""

from contextlib import closing
from dataclasses import replace

import pytest

from autopeft.errors import ConfigurationError, NotFoundError, StoreError
from autopeft.probe import Probe, ProbeKind
from autopeft.store import Reader, Store

IMPORTANCE = Probe(
    name="rooms-importance-1",
    kind=ProbeKind.IMPORTANCE,
    model="tiny",
    model_sha256="a" * 64,
    task="rooms",
    data_sha256="b" * 64,
    configuration={},
    settings={"steps": 100},
    seed=0,
    repeats=1,
    split_sha256="c" * 64,
    scores={"layer": [0.5, None]},
    details={},
)


@pytest.fixture
def kept(url):
    with closing(Store.open(url, create=True)) as store:
        yield store


def test_a_probe_comes_back_as_it_was_kept(kept, url):
    kept.record_probe(IMPORTANCE)
    with Reader.open(url) as reader:
        assert reader.probe_names() == ["rooms-importance-1"]
        assert reader.probe("rooms-importance-1") == IMPORTANCE


def test_a_kind_means_its_latest_probe_of_that_model(kept):
    other = replace(IMPORTANCE, name="rooms-importance-2", model_sha256="d" * 64)
    for probe in (IMPORTANCE, other, replace(IMPORTANCE, name="s", kind=ProbeKind.SELECTION)):
        kept.record_probe(probe)
    assert kept.probe("importance") == other
    assert kept.probe("importance", "a" * 64) == IMPORTANCE
    with pytest.raises(NotFoundError, match="no probe 'importance' of this model; there are: rooms-importance-1"):
        kept.probe("importance", "e" * 64)


def test_a_name_is_taken_once_and_must_be_one(kept):
    kept.record_probe(IMPORTANCE)
    with pytest.raises(StoreError, match="exists already"):
        kept.record_probe(replace(IMPORTANCE, seed=1))
    assert kept.probe("rooms-importance-1") == IMPORTANCE
    with pytest.raises(ConfigurationError, match="probe name"):
        kept.record_probe(replace(IMPORTANCE, name="a b"))


def test_where_there_is_none_the_message_says_what_makes_one(kept):
    with pytest.raises(NotFoundError, match=r"there are: none .*autopeft importance"):
        kept.probe("importance")
