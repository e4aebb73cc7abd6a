"""Fleets of workers that are killed, stopped and cut off, on SQLite and PostgreSQL."""

import importlib.util
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from autopeft.store import Outcome, Store
from autopeft.store.database import Database
from autopeft.store.invariants import violations
from autopeft.study import TrialState

HERE = Path(__file__).parent
DRIVER = f"{socket.gethostname()}:1"


def _load(place):
    spec = importlib.util.spec_from_file_location(place.stem, place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_fixtures = _load(HERE.parent / "autopeft" / "store" / "conftest.py")
_of_workers = _load(HERE.parent / "workers" / "conftest.py")
_load(HERE / "mutants.py").apply()
make_study = _fixtures.make_study
make_proposals = _fixtures.make_proposals
measured = _fixtures.measured
postgresql_server = _fixtures.postgresql_server
sqlite_url = _fixtures.sqlite_url
postgresql_url = _fixtures.postgresql_url
url = _fixtures.url
run_sql = _fixtures.run_sql
wait_no_longer = _fixtures.wait_no_longer
checkpoint = _of_workers.checkpoint
task_folder = _of_workers.task_folder
study_of_rooms = _of_workers.make_study
_clocks = _load(HERE / "clocks.py")


def pytest_collection_modifyitems(items):
    """Everything here kills processes."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.chaos)


class Zygote:
    """A process that has imported everything and forks a supervisor for each order (``stub_worker.py``)."""

    def __init__(self):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command, pipe = [sys.executable, str(HERE / "stub_worker.py")], subprocess.PIPE
        self._log = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 - closed with the zygote
        self._process = subprocess.Popen(
            command, env=environment, stdin=pipe, stdout=pipe, stderr=self._log, text=True, start_new_session=True
        )

    def fork(self, order):
        self._process.stdin.write(json.dumps({**order, "parent": self._process.pid}) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def said(self):
        self._log.seek(0)
        return self._log.read()

    def close(self):
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            stream.close()


@pytest.fixture(scope="session")
def zygote():
    one = Zygote()
    yield one
    one.close()


class Fleet:
    """Real supervisors with children that train nothing."""

    def __init__(
        self, zygote, url, study="aspects", steps=5, seconds=0.01, lease=1.0, hang=60.0, clock=0.0, faults=None, **more
    ):
        self.url, self.kills, self.started, self._zygote = url, 0, 0, zygote
        self._order = {"url": url, "study": study, "steps": steps, "seconds": seconds, "lease": lease}
        self._order |= {"hang": hang, "clock": clock, "faults": faults or {}, **more}
        self.workers, self.named = [], {}

    def start(self, count=1, **changes):
        """Starts so many workers; the process id of the last."""
        for _ in range(count):
            self.started += 1
            name = f"worker-{self.started}"
            self.workers.append(self._zygote.fork({**self._order, "name": name, **changes}))
            self.named[name] = self.workers[-1]
        return self.workers[-1]

    def keep(self, count):
        """Starts anew what died, so that there are ``count`` again."""
        self.workers = [pid for pid in self.workers if alive(pid)]
        self.start(count - len(self.workers))

    def kill(self, pid, number=signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            self.kills += number == signal.SIGKILL

    def said(self):
        return self._zygote.said()

    def close(self):
        for pid in self.workers:
            for process in (pid, *children(pid)):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)


class Gate:
    """Holds every trial that has ``fault`` in its middle until it is opened."""

    def __init__(self, folder):
        folder.mkdir()
        self._folder, self.fault = folder, f"hold:{folder}"

    def reached(self):
        """Whether a trial stands at it, or did."""
        return (self._folder / "held").exists()

    def open(self):
        (self._folder / "let-go").touch()


@pytest.fixture
def make_gate(tmp_path):
    return lambda name="gate": Gate(tmp_path / name)


@pytest.fixture
def gate(make_gate):
    return make_gate()


def alive(pid):
    """Whether the process runs and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def children(pid):
    """Process ids of its children."""
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


@pytest.fixture
def fleet(request, zygote):
    """Makes fleets on the record (or on another), ended with the test."""
    made = []

    def make(on=None, **fields):
        made.append(Fleet(zygote, on or request.getfixturevalue("url"), **fields))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def record(url, make_study, make_proposals):
    """Makes a record of so many queued trials; the invariants must hold at the end of the test."""
    opened = []

    def make(count, **fields):
        store = Store.open(url, create=True)
        store.create_study(make_study(**fields))
        store.enqueue("aspects", store.acquire_driver("aspects", DRIVER, 3600), make_proposals(count))
        opened.append(store)
        return store

    yield make
    for store in opened:
        store.close()
        verify_invariants(url)


@pytest.fixture(scope="session")
def tools():
    """What the tests need of this file."""

    class Tools:
        pass

    Tools.driver = DRIVER
    for tool in (alive, children, verify_invariants, wait_for, lost, until_final, storm, all_complete, own_server):
        setattr(Tools, tool.__name__, staticmethod(tool))
    Tools.follow, Tools.of_a_server = staticmethod(_clocks.follow), staticmethod(_clocks.of_a_server)
    return Tools


def verify_invariants(url, artifacts=None):
    """Nothing, if the record is sound."""
    with closing(Database(url, read_only=True)) as database, database.reading() as connection:
        assert violations(connection, artifacts) == []


def wait_for(condition, seconds=120.0, what="it"):
    """What ``condition`` gives as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds} s"
        time.sleep(0.01)
    return found


def lost(store):
    """Whether an attempt was lost; reaps first, but a worker may have been quicker."""
    store.reap()
    attempts = (one for trial in store.trials("aspects") for one in store.attempts("aspects", trial.number))
    return any(one.outcome is Outcome.LOST for one in attempts)


def until_final(store, fleet, workers, seconds=240.0, each=lambda: None):
    """Keeps ``workers`` workers until every trial is final; ``each`` is called again and again."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress_store_errors():
            counts = store.counts("aspects")
            if not any(count for state, count in counts.items() if not state.is_final):
                return counts
            store.reap()
        assert time.monotonic() < deadline, f"not drained in {seconds} s: {dict(counts)}\n{fleet.said()[-2000:]}"
        fleet.keep(workers)
        each()
        time.sleep(0.03)


@contextmanager
def suppress_store_errors():
    from autopeft.errors import StoreError

    with suppress(StoreError):
        yield


def storm(store, fleet, seed, kills, more, workers=4):
    """Kills supervisors and children by dice until ``kills`` were killed, and waits until every trial is final.

    A kill waits for trials, not for a time: it strikes while one runs and none to three more are done than at the last.
    Where the workers were quicker than their killer, ``more`` queues further trials.
    """
    dice, due = random.Random(seed), [store.counts("aspects")[TrialState.COMPLETE]]

    def strike():
        trials = store.trials("aspects")
        busy = [fleet.named[trial.owner] for trial in trials if trial.state is TrialState.RUNNING]
        done = sum(trial.state is TrialState.COMPLETE for trial in trials)
        if fleet.kills >= kills or not busy or done < due[0]:
            return
        due[0] = done + dice.randint(0, 3)
        victim = dice.choice(busy if dice.random() < 0.5 else fleet.workers)
        if dice.random() < 0.5:
            victim = next(iter(children(victim)), victim)
        fleet.kill(victim)

    until_final(store, fleet, workers, each=strike)
    while fleet.kills < kills:
        more()
        until_final(store, fleet, workers, each=strike)


def all_complete(store, count):
    """Nothing, if every trial is complete with its own value, and nobody was quarantined."""
    trials = store.trials("aspects")
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * count
    for trial in trials:
        assert trial.values["accuracy"] == 0.5 + trial.number / 1000
    kinds = [event.kind for event in store.events("aspects")]
    assert kinds.count("reported") == count


@contextmanager
def own_server(place=None):
    """A PostgreSQL that a test may kill: (address, kill, start)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pgserver = pytest.importorskip("pgserver", reason="PostgreSQL: pgserver is not installed")
        folder = str(place or tempfile.mkdtemp(prefix="autopeft-pg-"))
        server = pgserver.get_server(folder)

        def kill():
            os.kill(server.get_pid(), signal.SIGKILL)
            wait_for(lambda: not alive(server.get_pid()), what="the end of the postmaster")

        def start():
            deadline = time.monotonic() + 120
            if not alive(server.get_pid()):
                # a zombie counts as running for pgserver, which would then start nothing
                Path(folder, "postmaster.pid").unlink(missing_ok=True)
            while True:
                try:
                    server.ensure_postgres_running()
                    return
                except Exception:
                    assert time.monotonic() < deadline, "PostgreSQL does not come back"
                    time.sleep(0.3)

        try:
            yield server.get_uri(), kill, start
        finally:
            start()
            server.cleanup()
            shutil.rmtree(folder, ignore_errors=True)
