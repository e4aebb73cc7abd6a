"""A zygote of real supervisors with stub children: each line of JSON on standard input starts one.

A supervisor is forked, not started, so that a storm of kills costs milliseconds and not imports; its child is a
process as ever. ``{"url", "name", "study", "steps", "seconds", "faults", "lease", "hang", "clock"}`` → its process id;
``database_clock`` is a file that SQLite's clock follows, ``scripts`` the migrations of another version, and a
``blind`` worker neither beats nor looks at the time.
"""

import importlib.util
import json
import os
import signal
import sys
import time
from pathlib import Path

import workers.heartbeat
from autopeft.store import Store, migrate
from workers import loop
from workers.stopping import obey_signals
from workers.supervisor import Supervised

STUB = Path(__file__).parents[1] / "workers" / "stub_child.py"


def main():
    load("mutants").apply()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            status = 1
            try:
                status = work(json.loads(line))
            except Exception as error:
                print(error, file=sys.stderr)
            finally:
                sys.stderr.flush()
                os._exit(status)
        print(pid, flush=True)


def work(asked):
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    stop = obey_signals(asked["parent"])
    loop.IDLE_POLL_SECONDS = (0.02, 0.1)
    loop.REAP_SECONDS = 0.3
    loop.RETRY_SECONDS = (0.05, 0.3)
    workers.heartbeat._RETRY_SECONDS = 0.1
    if asked["clock"]:
        real = time.time
        time.time = lambda: real() + asked["clock"]
    if asked.get("database_clock"):
        load("clocks").follow(asked["database_clock"])
    if asked.get("scripts"):
        migrate._PLACES = (Path(asked["scripts"]),)
    kind, lease = (Blind, 3600.0) if asked.get("blind") else (Store, asked["lease"])
    Blind.seconds = asked["lease"]
    command = [sys.executable, "-S", "-E", "-c", BOOT, json.dumps(sys.path), str(STUB)]
    command += [str(asked["steps"]), str(asked["seconds"]), json.dumps(asked["faults"])]
    settings = loop.WorkerSettings(asked["name"], asked["study"], lease_seconds=lease)
    loop.run_worker(lambda: kind.open(asked["url"]), settings, Supervised(command, asked["hang"]), stop)
    return 0


class Blind(Store):
    """The record as a worker sees it that never hears that it has lost a lease."""

    seconds = 1.0

    def lease(self, worker, study, lease_seconds=60.0):
        return super().lease(worker, study, self.seconds)

    def beat(self, trial_id, attempt, lease_seconds=60.0):
        return False


def load(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BOOT = (
    "import sys, json, runpy; sys.path[:] = json.loads(sys.argv[1]); sys.argv = sys.argv[2:];"
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)

if __name__ == "__main__":
    main()
