"""Whole searches by the command line, with real trainings of a tiny model: Ray against local, and kill -9 anywhere.

Fault 22 (raylet, worker and driver under Ray), fault 9 with a search on top, and the front that does not depend on who
starts the workers.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from contextlib import closing
from importlib.util import find_spec

import pytest

from autopeft.errors import StoreError
from autopeft.store import Store
from autopeft.study import Origin, TrialState

pytestmark = pytest.mark.slow

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")


class Search:
    """A search of a tiny model as somebody types it."""

    def __init__(self, url, folder, checkpoint, task_folder):
        self.url, self.folder = url, folder
        self._question = [
            "--model",
            checkpoint,
            "--task",
            task_folder,
            "--budget",
            "2000",
            "--seed",
            "3",
            "-s",
            "rooms",
        ]
        self._environment = {**os.environ, "AUTOPEFT_DB": url, "AUTOPEFT_ARTIFACTS": str(folder / "artifacts")}

    def start(self, command, *arguments):
        question = self._question if command == "search" else []
        words = [sys.executable, "-P", "-m", "autopeft.cli", command, *map(str, [*question, *arguments])]
        log = (self.folder / "log").open("a")
        with log:
            return subprocess.Popen(words, env=self._environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def types(self, command, *arguments, seconds=400):
        process = self.start(command, *arguments)
        assert process.wait(seconds) == 0, self.said()

    def said(self):
        return (self.folder / "log").read_text()[-4000:]

    def wait(self, condition, what, seconds=300):
        """What ``condition`` gives for the open record, as soon as that is true."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                with Store.open(self.url) as store:
                    if found := condition(store):
                        return found
            except StoreError:
                pass
            assert time.monotonic() < deadline, f"{what} did not happen\n{self.said()}"
            time.sleep(0.2)

    def wait_for_complete(self, count):
        return self.wait(lambda store: store.counts("rooms")[TrialState.COMPLETE] >= count, f"{count} complete trials")

    def require_whole(self, tools, count):
        """Nothing, if ``count`` proposals and what comes with them are complete, each once, and all files are there."""
        with Store.open(self.url) as store:
            trials = store.trials("rooms")
        assert {trial.state for trial in trials} == {TrialState.COMPLETE}
        assert sum(trial.origin in (Origin.INITIAL, Origin.MODEL) for trial in trials) == count
        assert len({(trial.digest, trial.replicate) for trial in trials}) == len(trials)
        tools.verify_invariants(self.url, self.folder / "artifacts")

    def front(self):
        words = [sys.executable, "-P", "-m", "autopeft.cli", "front", "--json"]
        done = subprocess.run(words, env=self._environment, capture_output=True, text=True, check=True)
        members = json.loads(done.stdout)["members"]
        kept = [{name: value for name, value in one["values"].items() if "seconds" not in name} for one in members]
        return [(one["trial"], one["configuration"], values) for one, values in zip(members, kept, strict=True)]


@pytest.fixture
def make_search(tmp_path, checkpoint, task_folder):
    def make(url, name="one"):
        (tmp_path / name).mkdir()
        return Search(url, tmp_path / name, checkpoint(), task_folder)

    return make


@pytest.fixture
def cluster():
    """A Ray cluster of this machine: a head that runs nothing, and one node with two CPUs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray.cluster_utils import Cluster

        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        made.add_node(num_cpus=2)
        yield made
        made.shutdown()


def raylet_of(node):
    return node.all_processes["raylet"][0].process.pid


@needs_ray
@pytest.mark.filterwarnings("ignore")
def test_one_worker_under_ray_ends_in_the_front_of_a_local_one_and_two_in_the_full_number(
    cluster, make_search, tmp_path, tools
):
    short = ["--trials", 8, "--initial", 4, "--steps", 6]
    local = make_search(f"sqlite:///{tmp_path}/local.db", "local")
    local.types("search", *short, "--workers", 1)
    under_ray = make_search(f"sqlite:///{tmp_path}/ray.db", "ray")
    on_ray = ["--engine", "ray", "--engine-address", cluster.address]
    under_ray.types("search", *short, "--workers", 1, *on_ray)
    assert under_ray.front() == local.front() != []
    two = make_search(f"sqlite:///{tmp_path}/two.db", "two")
    two.types("search", *short, "--workers", 2, *on_ray)
    for search in (local, under_ray, two):
        search.require_whole(tools, 8)


@needs_ray
@pytest.mark.filterwarnings("ignore")
def test_22_kill_nine_of_worker_raylet_and_driver_under_ray_ends_in_the_full_number(
    cluster, make_search, url, tools, run_sql
):
    search = make_search(url)
    on_ray = ["--workers", 2, "--engine", "ray", "--engine-address", cluster.address]
    driver = search.start("search", "--trials", 12, "--steps", 120, *on_ray)
    search.wait_for_complete(2)
    with Store.open(url) as store:
        worker = store.workers()[0]
    os.kill(worker.pid, signal.SIGKILL)
    run_sql("UPDATE trial SET expires_at = 0 WHERE owner = :name", name=worker.name)  # nobody renews it any more
    search.wait_for_complete(4)
    [node] = cluster.worker_nodes
    os.kill(raylet_of(node), signal.SIGKILL)
    cluster.add_node(num_cpus=2)
    run_sql("UPDATE trial SET expires_at = 0 WHERE owner IS NOT NULL")
    search.wait_for_complete(7)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    search.types("resume", "--trials", 16, *on_ray)  # more: it may have been quicker than its killer
    search.require_whole(tools, 16)


def test_9_kill_nine_of_the_postmaster_under_a_search_ends_in_the_full_number(make_search, tools):
    pytest.importorskip("psycopg", reason="PostgreSQL: psycopg is not installed")
    with tools.own_server() as (url, kill, start):
        search = make_search(url)
        driver = search.start("search", "--trials", 12, "--steps", 40, "--workers", 2)
        for count in (2, 8):
            search.wait_for_complete(count)
            kill()
            time.sleep(1.0)
            start()
        assert driver.wait(400) == 0, search.said()
        search.require_whole(tools, 12)


def test_kill_nine_of_worker_and_driver_on_a_ladder_of_rungs_ends_in_the_full_number(make_search, tmp_path, tools):
    search = make_search(f"sqlite:///{tmp_path}/ladder.db")
    short = ["--trials", 8, "--initial", 4, "--steps", 40, "--fidelity", "1/4,1/2", "--confirm", 0]
    driver = search.start("search", *short, "--workers", 2)

    def at_a_rung(store):
        return store.counts("rooms")[TrialState.PAUSED] >= 2

    search.wait(at_a_rung, "two trials at a rung")
    with Store.open(search.url) as store:
        worker = store.workers()[0]
    os.kill(worker.pid, signal.SIGKILL)
    with closing(sqlite3.connect(tmp_path / "ladder.db", timeout=60)) as connection, connection:
        connection.execute(
            "UPDATE trial SET expires_at = 0 WHERE owner = ?", [worker.name]
        )  # nobody renews it any more
    search.wait(lambda store: len(store.trials("rooms")) >= 10, "more proposals")
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    search.types("resume", "--trials", 12, "--workers", 2)  # more: it may have been quicker than its killer
    with Store.open(search.url) as store:
        trials = store.trials("rooms")
    proposed = [trial for trial in trials if trial.origin in (Origin.INITIAL, Origin.MODEL)]
    assert len(proposed) == 12
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.PAUSED}
    assert {trial.rung for trial in trials if trial.state is TrialState.COMPLETE} == {3}
    assert {trial.rung for trial in proposed if trial.state is TrialState.PAUSED} <= {1, 2}
    assert sum(trial.state is TrialState.COMPLETE for trial in proposed) >= 2  # half of half
    assert all(trial.values_at(rung) is not None for trial in proposed for rung in range(trial.rung))
    tools.verify_invariants(search.url, search.folder / "artifacts")
