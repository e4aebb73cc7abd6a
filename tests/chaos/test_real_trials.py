"""Faults 15 and 20 with real trainings of tiny models: too little memory, and a bit that flips in a checkpoint."""

import json
import sys

import pytest
from transformers import BertConfig, BertModel

from autopeft.store import Failure, Store
from autopeft.study import Fidelity, Origin, Proposal, TrialState
from search_spaces.configuration import uniform
from search_spaces.methods.lora import Lora
from workers.inside import Inside
from workers.loop import WorkerSettings, run_worker
from workers.supervisor import Supervised

SHORT_OF_MEMORY = """
import json, resource, sys
sys.path[:] = json.loads(sys.argv[1])
import workers.inside
from pathlib import Path
from workers.child import run_child

measure = workers.inside.Inside.measure

def with_little_memory(self, order, between_steps):
    self._residents.of(order.study)
    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + int(sys.argv[3])
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return measure(self, order, between_steps)

workers.inside.Inside.measure = with_little_memory
run_child("cpu", 1, Path(sys.argv[2]), int(sys.argv[4]))
"""


def queue(store, study, tools, count=1):
    """The epoch of a study with so many trials."""
    store.create_study(study)
    epoch = store.acquire_driver(study.name, tools.driver, 3600)
    plans = [uniform(study.backbone, ("query",), Lora(rank, 2.0), 1e-2) for rank in range(1, count + 1)]
    store.enqueue(study.name, epoch, [Proposal(plan, Origin.MODEL) for plan in plans])
    return epoch


def work(url, study, evaluator, trials):
    run_worker(lambda: Store.open(url), WorkerSettings("w", study.name, max_trials=trials), evaluator)


@pytest.fixture
def wide(checkpoint, tmp_path):
    """A model whose activations are large: 60 rows of 14 tokens, 16,384 wide, are 55 MB each."""
    folder, small = tmp_path / "wide", checkpoint()
    config = BertConfig.from_pretrained(small)
    config.intermediate_size, config.num_hidden_layers = 16_384, 2
    BertModel(config).save_pretrained(folder)
    for file in small.glob("*token*"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.mark.slow
def test_15_a_trial_that_the_host_has_too_little_memory_for_fails_by_that_name_and_not_its_worker(
    url, tools, tmp_path, study_of_rooms, wide
):
    study = study_of_rooms(family=wide, fidelity=Fidelity(steps=2, batch_size=60, max_length=32))
    command = [sys.executable, "-c", SHORT_OF_MEMORY, json.dumps(sys.path), str(tmp_path), str(24 << 20)]
    with Store.open(url, create=True) as store:
        queue(store, study, tools)
        work(url, study, Supervised(command), 2)
        assert store.trial(study.name, 0).state is TrialState.FAILED
        attempts = store.attempts(study.name, 0)
        assert [one.failure for one in attempts] == [Failure.HOST_MEMORY] * 2
        tools.verify_invariants(url, tmp_path)
        store.retry(study.name)
        work(url, study, Supervised([*command[:-1], str(8 << 30)]), 1)
        assert store.trial(study.name, 0).state is TrialState.COMPLETE
    tools.verify_invariants(url, tmp_path)


def test_20_a_bit_that_flips_in_a_checkpoint_falls_back_a_rung(url, tools, tmp_path, study_of_rooms):
    study = study_of_rooms(fidelity=Fidelity(steps=12, batch_size=8, max_length=32, ladder=(3, 6)))
    inside = Inside("cpu", tmp_path)
    with Store.open(url, create=True) as store:
        epoch = queue(store, study, tools)
        for rung in (0, 1):
            work(url, study, inside, 1)
            assert store.trial(study.name, 0).state is TrialState.PAUSED
            assert store.measurement(study.name, 0).rung == rung
            assert store.promote(study.name, epoch, [0]) == [0]
        folder = tmp_path / store.measurement(study.name, 0).artifact
        file = max((one for one in folder.iterdir() if one.is_file()), key=lambda one: one.stat().st_size)
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        work(url, study, inside, 1)
        assert store.trial(study.name, 0).state is TrialState.COMPLETE
        assert store.measurement(study.name, 0).details["training"] == {"from_step": 3}
    tools.verify_invariants(url, tmp_path)
