"""``worker``, ``stop``, ``retry`` and ``requeue``, called as the command line calls them."""

import json
import os
import sys

import pytest
import typer
from typer.testing import CliRunner

from autopeft.cli import dispatching
from autopeft.errors import StoreError
from autopeft.store import Store
from autopeft.study import Origin, Proposal, TrialState
from search_spaces.configuration import uniform
from search_spaces.methods.lora import Lora


@pytest.fixture
def record(tmp_path, make_study, tiny_backbone):
    url = f"sqlite:///{tmp_path / 'record.db'}"
    plans = [uniform(tiny_backbone, ("query",), Lora(1, 2.0), 1e-3 + 1e-6 * index) for index in range(3)]
    with Store.open(url, create=True) as store:
        store.create_study(make_study())
        store.enqueue(
            "tiny-1", store.acquire_driver("tiny-1", "test"), [Proposal(plan, Origin.MODEL) for plan in plans]
        )
        yield url, store


def call(*words):
    app = typer.Typer()
    dispatching.register(app)
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_stopped_study_has_nothing_left_to_do(record):
    url, store = record
    store.lease("w", None)
    done = call("stop", "tiny-1", "--db", url, "--json")
    assert json.loads(done.stdout) == {"schema": "autopeft.stopped/1", "study": "tiny-1", "trials": 3}
    assert store.counts("tiny-1")[TrialState.CANCELLED] == 2
    assert "3 open" not in call("stop", "tiny-1", "--db", url).stdout


def test_failed_trials_are_queued_again(record, monkeypatch):
    url, store = record
    assert "no trial of tiny-1 has failed" in call("retry", "--db", url).stdout
    monkeypatch.setattr("autopeft.store.blame.FAILURE_LIMIT", 1)
    order = store.lease("w", None)
    assert store.report_failure(order.trial_id, order.attempt, "no", "") is TrialState.FAILED
    assert "queued again: 0" in call("retry", "--db", url).stdout
    assert store.trial("tiny-1", 0).state is TrialState.QUEUED


def test_one_trial_is_put_back(record):
    url, store = record
    store.cancel("tiny-1", 1)
    assert "trial 1 of tiny-1 was CANCELLED and is queued again" in call("requeue", 1, "--db", url).stdout
    done = json.loads(call("requeue", 1, "--db", url, "--json").stdout)
    assert (done["trials"], done["was"]) == ([1], "QUEUED")


def test_what_is_complete_is_refused(record):
    from autopeft.study import Measurement

    url, store = record
    order = store.lease("w", None)
    store.report(order.trial_id, order.attempt, Measurement(0, {"accuracy": 0.5}))
    assert isinstance(call("requeue", 0, "--db", url).exception, StoreError)


def test_a_worker_becomes_the_worker_process_and_the_database_is_no_argument(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(os, "execve", lambda *words: seen.append(words))
    url = "postgresql://user:secret@host/db"
    done = call(
        "worker",
        "--db",
        url,
        "--device",
        "cpu",
        "--max-trials",
        3,
        "--max-seconds",
        60,
        "--artifacts",
        tmp_path,
        "--cache",
        "fp16",
        "--pack",
        8,
    )
    assert done.exit_code == 0, done.exception
    [(program, command, environment)] = seen
    assert program == sys.executable
    assert command[1:5] == ["-P", "-m", "workers", "run"]
    assert command[command.index("--max-trials") + 1] == "3"
    assert command[command.index("--cache") + 1] == "fp16"
    assert command[command.index("--pack") + 1] == "8"
    assert command[command.index("--artifacts") + 1] == str(tmp_path)
    assert "secret" not in " ".join(command)
    assert environment["AUTOPEFT_DB"] == url
