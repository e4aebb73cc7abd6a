"""A zygote of real supervisors with stub children: each line of JSON on standard input starts one.

A supervisor is forked, not started, so that a storm of kills costs milliseconds and not imports; its child is a
process as ever. ``{"url", "name", "study", "steps", "seconds", "faults", "lease", "hang", "clock"}`` → its process id.
"""

import importlib.util
import json
import os
import signal
import sys
import time
from pathlib import Path

import workers.heartbeat
from autopeft.store import Store
from workers import loop
from workers.stopping import obey_signals
from workers.supervisor import Supervised

STUB = Path(__file__).parents[1] / "workers" / "stub_child.py"


def main():
    mutate()
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
    command = [sys.executable, "-S", "-E", "-c", BOOT, json.dumps(sys.path), str(STUB)]
    command += [str(asked["steps"]), str(asked["seconds"]), json.dumps(asked["faults"])]
    settings = loop.WorkerSettings(asked["name"], asked["study"], lease_seconds=asked["lease"])
    loop.run_worker(lambda: Store.open(asked["url"]), settings, Supervised(command, asked["hang"]), stop)
    return 0


def mutate():
    spec = importlib.util.spec_from_file_location("mutants", Path(__file__).with_name("mutants.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.apply()


BOOT = (
    "import sys, json, runpy; sys.path[:] = json.loads(sys.argv[1]); sys.argv = sys.argv[2:];"
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)

if __name__ == "__main__":
    main()
