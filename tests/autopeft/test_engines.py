"""The engines ``ray`` and ``slurm`` for real, on this machine: with stub workers where the packages are installed."""

import json
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from autopeft.errors import ConfigurationError, StoreError
from autopeft.launch import WorkerPlan, devices, make_engine
from autopeft.launch.posts import Post, stand
from autopeft.store import Store
from autopeft.study import Origin, Proposal, TrialState
from search_spaces.configuration import uniform
from search_spaces.methods.lora import Lora

STUBS = Path(__file__).parents[1] / "workers"
TRIALS = 8

ENTRY = f"""
import json, os, sys, time
sys.path[:] = json.loads(os.environ["STUB_PATH"])
sys.modules.pop("workers", None)
os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
from autopeft.store import Store
from workers.loop import WorkerSettings, run_worker
from workers.stopping import obey_signals
from workers.supervisor import Supervised
words = dict(zip(sys.argv[2::2], sys.argv[3::2]))
stop = obey_signals(int(words["--parent"]))
command = [sys.executable, {str(STUBS / "stub_child.py")!r}, "5", "0.02", "{{}}"]
idle = float(words["--idle-seconds"])
settings = WorkerSettings(words["--worker-id"], words["--study"], idle_seconds=idle, lease_seconds=60.0)
run_worker(lambda: Store.open(os.environ["AUTOPEFT_DB"]), settings, Supervised(command), stop)
"""


@pytest.fixture
def stubs(tmp_path, monkeypatch):
    """Makes every worker command start a supervisor with a stub child, in other processes too."""
    script = tmp_path / "entry.py"
    script.write_text(ENTRY)
    monkeypatch.setenv("STUB_PATH", json.dumps(sys.path))
    monkeypatch.setattr(devices, "worker_command", lambda *words: [sys.executable, str(script), *words])
    # other processes find a package of the name "workers" first that is the script
    shim = tmp_path / "shim" / "workers"
    shim.mkdir(parents=True)
    (shim / "__init__.py").touch()
    (shim / "__main__.py").write_text(ENTRY)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(shim.parent), *sys.path]))


@pytest.fixture
def record(tmp_path, make_study, tiny_backbone):
    url = f"sqlite:///{tmp_path / 'record.db'}"
    plans = [uniform(tiny_backbone, ("query",), Lora(1, 2.0), 1e-3 + 1e-6 * index) for index in range(TRIALS)]
    with Store.open(url, create=True) as store:
        store.create_study(make_study())
        epoch = store.acquire_driver("tiny-1", f"{socket.gethostname()}:1", 3600)
        store.enqueue("tiny-1", epoch, [Proposal(plan, Origin.MODEL) for plan in plans])
        yield url, store


def until_complete(store, engine, seconds=300.0):
    deadline = time.monotonic() + seconds
    while store.counts("tiny-1")[TrialState.COMPLETE] < TRIALS:
        assert time.monotonic() < deadline, store.counts("tiny-1")
        engine.ensure_alive()
        store.reap()
        time.sleep(0.1)


def gone(condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


@pytest.mark.usefixtures("stubs")
class TestPost:
    def test_a_post_runs_one_worker_and_drains_it(self, record, tmp_path, monkeypatch):
        url, store = record
        monkeypatch.setenv("AUTOPEFT_DB", url)
        post = Post("tiny-1", str(tmp_path), "post")
        assert gone(lambda: store.counts("tiny-1")[TrialState.COMPLETE] >= 1), post.last_line
        post.drain()
        assert gone(lambda: not post.running)
        assert post.status == 0
        assert store.counts("tiny-1")[TrialState.RUNNING] == 0

    def test_a_job_obeys_the_marks_in_its_folder(self, record, tmp_path, monkeypatch):
        url, store = record
        monkeypatch.setenv("AUTOPEFT_DB", url)
        marks = tmp_path / "marks"
        marks.mkdir()
        (marks / "stop").touch()
        job = threading.Thread(target=stand, args=("tiny-1", str(tmp_path), "post", str(marks)))
        job.start()
        job.join(120)
        assert not job.is_alive()
        assert store.counts("tiny-1")[TrialState.RUNNING] == 0


@pytest.mark.parametrize(("name", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    engine = make_engine(name, "sqlite:///a.db", "s", tmp_path, "1")
    with pytest.raises(ConfigurationError, match=rf"pip install 'autopeft\[{name}\]'"):
        engine.start()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("submitit") is None, reason="submitit is not installed")
@pytest.mark.usefixtures("stubs")
def test_jobs_of_submitit_drain_the_queue_and_end(record, tmp_path):
    from autopeft.launch.slurm import SlurmEngine

    url, store = record
    engine = SlurmEngine(url, "tiny-1", tmp_path, [WorkerPlan("cpu", 1)] * 2, "local", {"timeout_min": 5})
    engine.start()
    until_complete(store, engine)
    assert engine.alive_count == 2
    engine.stop()
    assert engine.alive_count == 0
    assert store.counts("tiny-1")[TrialState.RUNNING] == 0
    assert url not in "".join(
        file.read_text(errors="replace") for file in tmp_path.rglob("submitit/*") if file.is_file()
    )


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("stubs")
def test_detached_actors_drain_the_queue_survive_a_kill_and_end(record, tmp_path, workers):
    from autopeft.launch.ray import RayEngine

    url, store = record
    engine = RayEngine(url, "tiny-1", tmp_path, [WorkerPlan("cpu", 1)] * workers, gpus=0)
    engine.start()
    try:
        assert gone(lambda: store.counts("tiny-1")[TrialState.COMPLETE] >= 1)
        worker = store.workers()[0]
        os.kill(worker.pid, 9)
        for trial in store.trials("tiny-1"):
            if (trial.state, trial.owner) == (TrialState.RUNNING, worker.name):
                with suppress(StoreError):  # reported in its last moment
                    store.requeue("tiny-1", trial.number)  # nobody renews its lease any more
        until_complete(store, engine)
    finally:
        engine.stop()
    assert store.counts("tiny-1")[TrialState.RUNNING] == 0
