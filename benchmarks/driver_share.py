"""What the driver of a search costs its workers where trials are short.

``python benchmarks/driver_share.py [--proposers random closed-form] [--workers 16] [--trials 240] [--seconds 1.0]
[--seeds 0 1 2]``: a real driver, and workers that only wait, in a process of their own (as threads of the driver's they
would hold its interpreter up). They lease, beat nothing, and look for work as often as a real worker does.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from record_of_trials import databases, study

from autopeft.driver import Driver, Interrupt
from autopeft.launch import WorkerPlan
from autopeft.store import Store
from autopeft.study import PARAMETERS, Measurement

IDLE_POLL_SECONDS = (0.2, 2.0)
"""As ``workers.loop`` waits between two looks for work: at first, and at most."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """A worker that waits instead of training.

    Attributes:
        url: The record.
        name: Its name, which also seeds how long its trials take.
        seconds: Mean of that.
        leave: Set when there is nothing more to come.
        starts: When it got each trial.
        ends: When it was free again: since it started, then after each trial.
    """

    url: str
    name: str
    seconds: float
    leave: threading.Event
    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)

    def run(self) -> None:
        """Works until told to leave."""
        dice = random.Random(self.name)
        with Store.open(self.url) as store:
            self.ends.append(time.perf_counter())
            wait = IDLE_POLL_SECONDS[0]
            while not self.leave.is_set():
                order = store.lease(self.name, "bench")
                if order is None:
                    self.leave.wait(wait)
                    wait = min(wait * 1.5, IDLE_POLL_SECONDS[1])
                    continue
                wait = IDLE_POLL_SECONDS[0]
                self.starts.append(time.perf_counter())
                time.sleep(self.seconds * dice.uniform(0.8, 1.2))
                values = {"accuracy": 0.5 + dice.random() / 2, "loss": 1.0, PARAMETERS: 1000.0 + order.number}
                values |= {"train_seconds": self.seconds, "evaluate_seconds": 0.0}
                store.report(order.trial_id, order.attempt, Measurement(0, values))
                self.ends.append(time.perf_counter())


def simulate(url: str, workers: int, seconds: float) -> None:
    """Lets so many workers work until standard input ends, then prints when each started and ended what."""
    leave = threading.Event()
    crew = [Simulated(url, f"w{index}", seconds, leave) for index in range(workers)]
    threads = [threading.Thread(target=one.run) for one in crew]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    leave.set()
    for thread in threads:
        thread.join()
    print(json.dumps([[one.starts, one.ends] for one in crew]))


class Crew:
    """An engine whose workers are simulated, by one process."""

    def __init__(self, url: str, workers: int, seconds: float) -> None:
        self.plans = [WorkerPlan("cpu", 1)] * workers
        self.alive_count = workers
        self.worked: list[list[list[float]]] = []
        self._command = [sys.executable, __file__, "--simulate", url, str(workers), str(seconds)]

    def start(self) -> None:
        """Starts them."""
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, text=True, env=dict(os.environ))

    def ensure_alive(self) -> None:
        """They do not die."""

    def drain(self) -> None:
        """Nothing is interrupted here."""

    def stop(self) -> None:
        """Has them end, and keeps when each worked: starts and ends, for every worker."""
        self.worked = json.loads(self._process.communicate()[0])


def driver_share(
    url: str, proposer: str, workers: int = 16, trials: int = 240, seconds: float = 1.0, seed: int = 0
) -> dict[str, Any]:
    """What the driver of a search with trials of about ``seconds`` costs its workers.

    ``driver_cpu_share`` is its CPU time as a share of its workers' time; ``lost_share`` what they waited for a trial,
    from when they were ready until nothing was left to propose.
    """
    asked = replace(study(), trials=trials, proposer=proposer, initial_count=24, seed=seed)
    crew = Crew(url, workers, seconds)
    with Store.open(url, create=True) as store:
        store.create_study(asked)
        began, cpu = time.perf_counter(), time.process_time()
        Driver(store, asked, crew, lambda _progress: None, Interrupt()).run()  # type: ignore[arg-type]
        wall, used = time.perf_counter() - began, time.process_time() - cpu
    last = max(start for starts, _ in crew.worked for start in starts)
    pairs = [pair for starts, ends in crew.worked for pair in zip(starts, ends, strict=False)]
    return {
        "proposer": proposer,
        "trials": len(pairs),
        "wall_seconds": wall,
        "driver_cpu_seconds": used,
        "driver_cpu_share": used / (wall * workers),
        "lost_share": sum(start - end for start, end in pairs) / sum(last - ends[0] for _, ends in crew.worked),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proposers", nargs="*", default=["random", "closed-form"])
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--trials", type=int, default=240)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rows = []
    with databases() as make:
        for seed in asked.seeds:
            for proposer in asked.proposers:
                for database, url in make(f"driver_{proposer.replace('-', '_')}_{seed}").items():
                    found = driver_share(url, proposer, asked.workers, asked.trials, asked.seconds, seed)
                    rows.append({"database": database, "seed": seed, "load": os.getloadavg()[0], **found})
                    print(rows[-1], flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--simulate"]:
        simulate(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    else:
        main()
