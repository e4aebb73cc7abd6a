"""A probe in this process, on a tiny study."""

from dataclasses import replace

import pytest

from autopeft.probe import require_scores
from autopeft.study import Fidelity
from search_spaces.configuration import Training, uniform
from search_spaces.methods.lora import Lora
from search_spaces.schedule import UpdateSchedule
from search_spaces.selection import Selection
from workers.probing import probe


@pytest.fixture
def make_plan(make_study):
    def make(kind, repeats=2, **more):
        study = make_study(fidelity=Fidelity(8, 8, 32))
        plain = uniform(study.backbone, study.backbone.roles, Lora(1, 2.0), 1e-2)
        schedule = UpdateSchedule(interval=2) if kind == "importance" else None
        configuration = replace(plain, training=Training(1e-2, schedule))
        plan = {"study": study.to_json(), "configuration": configuration.to_json(), "kind": kind, "repeats": repeats}
        return plan | {"selection": Selection(ratio=0.5).to_json()} | more

    return make


def test_importance_is_the_mean_of_its_runs(make_plan):
    found = probe(make_plan("importance"))
    require_scores(found["scores"])
    runs = [run["importance"] for run in found["details"]["runs"]]
    assert runs[0] != runs[1]
    assert found["scores"]["layer"] == pytest.approx([sum(column) / 2 for column in zip(*runs, strict=True)], abs=1e-6)
    assert found["split_sha256"] == found["details"]["runs"][0]["split_sha256"]


def test_a_selection_has_a_gate_for_every_module_and_says_what_it_keeps(make_plan):
    found = probe(make_plan("selection"))
    assert set(found["scores"]) == {"query", "key", "value", "output", "up", "down"}
    assert all(0 < gate < 1 for row in found["scores"].values() for gate in row)
    kept = [tuple(entry) for entry in found["details"]["kept"]]
    assert [sum(layer == row for layer, _ in kept) for row in (0, 1)] == [3, 3]
    assert len(found["details"]["margins"]) == 2


def test_probes_of_one_plan_are_equal(make_plan):
    one, other = (probe(make_plan("importance", repeats=1)) for _ in range(2))
    assert one["scores"] == other["scores"]
    assert one["split_sha256"] == other["split_sha256"]
