"""The verdict on searches whose noise was recorded from real repeats: ``benchmarks/verdict.py``."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from autopeft import verdict
from autopeft.study import Measurement, Origin, Proposal
from search_spaces.configuration import uniform
from search_spaces.methods.lora import Lora

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "verdict.py"


@pytest.fixture(scope="module")
def replay():
    spec = importlib.util.spec_from_file_location("replayed_verdict", BENCHMARK)
    module = sys.modules["replayed_verdict"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def recorded(replay):
    return replay.Repeats.from_json(json.loads(replay.TABLE.read_text()))


def test_the_table_is_small_and_reads_back(replay, recorded):
    assert replay.TABLE.stat().st_size < 20_000
    again = replay.Repeats.from_json(json.loads(json.dumps(recorded.to_json())))
    assert (again.marks == recorded.marks).all() and again.costs == recorded.costs
    assert recorded.marks.shape[0] >= 5 and recorded.marks.shape[1] >= 3


def test_the_planted_difference_is_the_true_one(replay, recorded):
    for planted in (0.0, 0.03):
        search = replay.simulate(replay.Replay(recorded, 1, 200, planted), 1)[0]
        assert search.truth == pytest.approx(planted, abs=1e-9)


def test_runs_are_moved_to_their_quality_and_stay_the_recorded_rows(replay):
    generator = np.random.default_rng(0)
    marks = generator.random(20_000) < 0.5
    up, down = (replay._moved(marks, wanted, generator) for wanted in (0.7, 0.2))
    assert up.mean() == pytest.approx(0.7, abs=0.01) and (up >= marks).all()
    assert down.mean() == pytest.approx(0.2, abs=0.01) and (down <= marks).all()


def test_a_study_with_repeats_becomes_a_table(replay, make_study, tiny_backbone, tmp_path):
    from autopeft.store import Store

    study, url = make_study(), f"sqlite:///{tmp_path}/record.db"
    plans = [uniform(tiny_backbone, ("query",), Lora(rank, 2.0), 1e-3) for rank in (1, 2)]
    proposals = [Proposal(plan, Origin.CONTROL, replicate=r) for plan in plans for r in (0, 1)]
    with Store.open(url, create=True) as store:
        store.create_study(study)
        store.enqueue(study.name, store.acquire_driver(study.name, "test"), proposals)
        for right in (3, 4, 5, 6):
            order = store.lease("w", study.name)
            values = {"accuracy": right / 10, "trainable_parameters": 32, "loss": 1.0}
            store.report(
                order.trial_id, order.attempt, Measurement(0, values, correct=(1,) * right + (0,) * (10 - right))
            )
    found = replay.record(url, None)
    assert found.marks.shape == (2, 2, 10)
    assert sorted(found.scores.ravel()) == pytest.approx([0.3, 0.4, 0.5, 0.6])


@pytest.mark.slow
def test_with_recorded_noise_intervals_cover_and_better_is_seldom_said_wrongly(replay, recorded, monkeypatch):
    monkeypatch.setattr(verdict, "DRAWS", 300)
    said = replay.summary(replay.simulate(replay.Replay(recorded, 3, 600, 0.0), 100))
    assert said["covered"] >= 0.85
    assert said["better"] <= 0.08


def test_a_planted_difference_is_found_where_training_is_no_matter_of_luck(replay, monkeypatch):
    """Noise of ``hwu64``: 200 steps on 64 intents, 1,076 validation rows, three fresh runs a side."""
    monkeypatch.setattr(verdict, "DRAWS", 200)
    table = replay.TABLE.with_name("repeats_hwu64.json")
    assert table.stat().st_size < 20_000
    recorded = replay.Repeats.from_json(json.loads(table.read_text()))
    assert recorded.marks.shape == (2, 6, 1_076) and recorded.residues.std() < 0.01
    found = replay.summary(replay.simulate(replay.Replay(recorded, 3, 1_076, 0.03), 40))
    assert found["better"] >= 0.80 and found["covered"] >= 0.85
    nothing = replay.summary(replay.simulate(replay.Replay(recorded, 3, 1_076, 0.0), 40))
    assert nothing["better"] <= 0.10 and nothing["covered"] >= 0.85
