"""The worker as a process of its own on a real database; the loop in one process on the real store."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from unittest.mock import ANY

import pytest
import torch

from autopeft.store import Store
from autopeft.study import PARAMETERS, Fidelity, Origin, Proposal, TrialState
from search_spaces.configuration import uniform
from search_spaces.methods.lora import Lora
from workers.__main__ import main
from workers.backbones import load_resident
from workers.evaluate import evaluate
from workers.inside import Inside
from workers.loop import WorkerSettings, run_worker
from workers.stopping import Preempted
from workers.supervisor import Supervised, child_command


@pytest.fixture
def queued(study, tmp_path):
    """A store with three queued trials of the study."""
    url = f"sqlite:///{tmp_path / 'record.db'}"
    with Store.open(url, create=True) as store:
        store.create_study(study)
        queue(store, study)
        yield store, url


def queue(store, study):
    epoch = store.acquire_driver(study.name, "test")
    plans = [uniform(study.backbone, ("query",), Lora(rank, 2.0), 1e-2) for rank in (1, 2, 4)]
    store.enqueue(study.name, epoch, [Proposal(plan, Origin.MODEL) for plan in plans])


def start(url, artifacts, *more):
    command = [sys.executable, "-P", "-m", "workers", "run", "--study", "rooms-1", "--worker-id", "w1"]
    command += ["--artifacts", str(artifacts), "--threads", "1", "--parent", str(os.getpid()), *more]
    environment = {**os.environ, "AUTOPEFT_DB": url}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def test_on_the_real_store_every_trial_is_complete_and_what_was_trained_is_recorded(queued, study, tmp_path):
    store, url = queued
    settings = WorkerSettings("w", study.name, idle_seconds=0.1)
    assert run_worker(lambda: Store.open(url), settings, Inside("cpu", tmp_path)) == 3
    trials = store.trials(study.name)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    for trial in trials:
        folder = tmp_path / store.measurement(study.name, trial.number).artifact
        assert json.loads((folder / "configuration.json").read_text()) == trial.configuration.to_json()
        assert trial.values[PARAMETERS] == study.search_space.cost(trial.configuration)


@pytest.mark.slow
def test_a_worker_process_works_quietly_and_leaves_when_asked(queued, study, tmp_path):
    store, url = queued
    with start(url, tmp_path, "--idle-seconds", "0.5") as process:
        _, said = process.communicate(timeout=400)
    assert (process.returncode, said) == (0, "")
    assert store.counts(study.name)[TrialState.COMPLETE] == 3
    (worker,) = store.workers()
    assert worker.environment["torch"]
    found = {"backbone": study.model.sha256, "data": ANY, "states": "exact"}
    found |= {"precision": "as the device has it", "quantisation": "none"}
    assert store.environments(study.name)[0] == {**worker.environment, **found}


def test_the_supervisor_loads_no_torch():
    code = "import sys, workers.loop, workers.supervisor; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


@pytest.mark.slow
def test_sigterm_in_mid_trial_hands_it_back_unblamed(make_study, tmp_path):
    study = make_study(fidelity=Fidelity(100_000, 8, 32))
    url = f"sqlite:///{tmp_path / 'record.db'}"
    with Store.open(url, create=True) as store:
        store.create_study(study)
        queue(store, study)
        with start(url, tmp_path) as process:
            deadline = time.monotonic() + 300
            while store.trial(study.name, 0).state is not TrialState.RUNNING:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.05)
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=120)
        assert (process.returncode, said) == (0, "")
        trial = store.trial(study.name, 0)
        assert (trial.state, trial.error, trial.attempt) == (TrialState.QUEUED, None, 1)


@pytest.mark.slow
def test_what_a_child_was_asked_to_give_up_another_finishes_as_if_nothing_had_been(
    make_study, make_order, tmp_path, monkeypatch
):
    """SIGTERM's way through the real pipe: a checkpoint in mid-rung, and a second child that goes on from it."""
    study = make_study(fidelity=Fidelity(240, 8, 32))
    steps = []
    monkeypatch.setattr("workers.supervisor.Progress.made", lambda _progress, done: steps.append(done))

    def stop_in_the_middle():
        if steps:
            raise Preempted("the worker was asked to stop", keep=True)

    order = make_order(study)
    first = Supervised(child_command("cpu", 1, tmp_path))
    with pytest.raises(Preempted) as stopped:
        first.evaluate(order, stop_in_the_middle)
    first.close()
    kept = stopped.value.checkpoint
    assert kept is not None
    again = replace(order, attempt=2, checkpoints=(kept,))
    second = Supervised(child_command("cpu", 1, tmp_path))
    measurement, _ = second.evaluate(again, lambda: None)
    second.close()
    assert 0 < measurement.details["training"]["from_step"] <= 240
    torch.set_num_threads(1)
    straight = evaluate(order, load_resident(study, torch.device("cpu")), tmp_path / "straight")
    assert measurement.sha256 == straight.sha256
    assert (measurement.curve, measurement.correct) == (straight.curve, straight.correct)


def test_without_a_database_the_worker_says_what_is_missing(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("AUTOPEFT_DB", raising=False)
    monkeypatch.setattr("workers.stopping.obey_signals", lambda _parent: None)
    assert main(["run", "--worker-id", "w", "--artifacts", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: AUTOPEFT_DB is not set")


def test_a_plan_that_cannot_be_read_gives_one_line(capsys, tmp_path):
    assert main(["time-step", "--plan", str(tmp_path / "none.json")]) == 2
    (tmp_path / "plan.json").write_text("[]")
    assert main(["train", "--plan", str(tmp_path / "plan.json")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("error: plan") for line in lines)


@pytest.mark.slow
def test_the_step_time_comes_as_json_on_standard_output(study):
    order = json.dumps({"study": study.to_json(), "device": "cpu", "threads": 1})
    command = [sys.executable, "-P", "-m", "workers", "time-step", "--plan", "-"]
    answer = subprocess.run(command, input=order, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert json.loads(answer.stdout)["measured"][0]["step_seconds"] > 0
