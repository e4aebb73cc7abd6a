"""Faults 13 and 14: a disk that is really full, under the adapters and under the record; a small one is mounted."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import pytest

from autopeft.errors import StoreError
from autopeft.store import Failure, Store
from autopeft.study import Origin, Proposal, TrialState
from search_spaces.configuration import uniform
from search_spaces.methods.lora import Lora


@contextmanager
def mounted(folder, size):
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no small disk can be mounted here: there is no mount")
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder):
    """Fills the disk to the last byte; the file that does so."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        for size in (1 << 16, 1 << 9, 1):
            with suppress(OSError):
                while file.write(b"x" * size):
                    pass
    return filler


def start_worker(url, artifacts):
    command = [sys.executable, "-P", "-m", "workers", "run", "--study", "rooms-1", "--artifacts", str(artifacts)]
    command += ["--idle-seconds", "0.5", "--parent", str(os.getpid())]
    return subprocess.Popen(command, env={**os.environ, "AUTOPEFT_DB": url}, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_13_a_disk_that_is_full_when_an_adapter_is_saved_ends_the_worker_and_blames_no_trial(
    url, tools, tmp_path, study_of_rooms
):
    study = study_of_rooms()
    with mounted(tmp_path / "disk", "1m") as disk, Store.open(url, create=True) as store:
        store.create_study(study)
        plans = [uniform(study.backbone, ("query",), Lora(rank, 2.0), 1e-2) for rank in (1, 2)]
        epoch = store.acquire_driver(study.name, tools.driver, 3600)
        store.enqueue(study.name, epoch, [Proposal(plan, Origin.MODEL) for plan in plans])
        filler = fill(disk)
        with start_worker(url, disk) as worker:
            said = worker.communicate(timeout=400)[1]
        assert worker.returncode == 1, said
        assert "free some space" in said
        [attempt] = store.attempts(study.name, 0)
        assert (attempt.failure, store.trial(study.name, 0).state) == (Failure.DISK, TrialState.QUEUED)
        tools.verify_invariants(url, disk)
        filler.unlink()
        with start_worker(url, disk) as worker:
            said = worker.communicate(timeout=400)[1]
        assert worker.returncode == 0, said
        assert [trial.state for trial in store.trials(study.name)] == [TrialState.COMPLETE] * 2
        assert [len(store.attempts(study.name, number)) for number in (0, 1)] == [2, 1]
        tools.verify_invariants(url, disk)


def work_through_a_full_disk(url, disk, free, fleet, tools, measured):
    """Workers before, while and after the disk under their record is full; a report without room is sent again."""
    with Store.open(url) as store:
        workers = fleet(on=url, steps=5, seconds=0.05, lease=1.0)
        order = store.lease("big", "aspects", 3600)
        big = measured(0.5 + order.number / 1000, artifact=os.urandom(400_000).hex())
        workers.start(2)
        tools.wait_for(lambda: store.counts("aspects")[TrialState.COMPLETE] >= 2)
        filler = fill(disk)
        with pytest.raises(StoreError, match=r"the disk is full|No space left on device"):
            store.report(order.trial_id, order.attempt, big)
        time.sleep(1.5)  # longer than the workers' leases
        filler.unlink()
        free()
        tools.wait_for(lambda: sent(store, order, big), what="the report")
        tools.until_final(store, workers, 2)
        tools.all_complete(store, 20)
        tools.verify_invariants(url)


def sent(store, order, measurement):
    try:
        store.report(order.trial_id, order.attempt, measurement)
    except StoreError:
        return False
    return True


def queue(url, tools, study, proposals):
    with Store.open(url, create=True) as store:
        store.create_study(study)
        store.enqueue("aspects", store.acquire_driver("aspects", tools.driver, 3600), proposals)


def test_14_a_full_disk_under_an_sqlite_record_is_waited_out(
    tmp_path, fleet, tools, measured, make_study, make_proposals
):
    with mounted(tmp_path / "disk", "3m") as disk:
        url = f"sqlite:///{disk}/record.db"
        queue(url, tools, make_study(), make_proposals(20))
        work_through_a_full_disk(url, disk, lambda: None, fleet, tools, measured)


def test_14_a_full_disk_under_a_servers_record_is_waited_out(
    tmp_path, fleet, tools, measured, make_study, make_proposals
):
    pytest.importorskip("psycopg", reason="PostgreSQL: psycopg is not installed")
    with mounted(tmp_path / "disk", "200m") as disk, tools.own_server(disk / "data") as (url, _, start_server):
        queue(url, tools, make_study(), make_proposals(20))
        work_through_a_full_disk(url, disk, start_server, fleet, tools, measured)
