"""What the record costs: a report that takes the next trial with it, beside Optuna's RDBStorage; and 10,000 trials.

``python benchmarks/dispatch.py [--processes 1 2 4 8] [--trials 400] [--large 10000]
[--proposers random closed-form] [--json FILE]`` runs everything on
SQLite and, where pgserver and psycopg are installed, on a PostgreSQL of its own. Optuna gets one parameter a trial,
which is generous: this record carries a whole configuration. CPU seconds are the trustworthy figures on a shared
machine; the driver's share is of wall time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from driver_share import driver_share
from record_of_trials import databases, proposals, study

from autopeft.store import Store
from autopeft.study import PARAMETERS, Measurement

OURS = """
import json, sys, time
from autopeft.store import Store
from autopeft.study import Measurement
url, name = sys.argv[1:]
values = {"accuracy": 0.5, "loss": 1.0, "trainable_parameters": 1.0, "train_seconds": 1.0, "evaluate_seconds": 1.0}
with Store.open(url) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    began, cpu, waits, done = time.perf_counter(), time.process_time(), [], []
    order = store.lease(name, "bench")
    while order is not None:
        asked = time.perf_counter()
        measured = Measurement(0, values, ((1, 2.0),), (1, 0) * 50, "x", "a" * 64)
        done.append(order.number)
        order = store.report_and_lease(order.trial_id, order.attempt, measured, None, name, "bench")
        waits.append(time.perf_counter() - asked)
    print(json.dumps([done, waits, time.perf_counter() - began, time.process_time() - cpu]))
"""

OPTUNA = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import optuna
optuna.logging.set_verbosity(optuna.logging.ERROR)
url, name = sys.argv[1:]
storage, sampler = optuna.storages.RDBStorage(url), optuna.samplers.RandomSampler()
study = optuna.load_study(study_name="bench", storage=storage, sampler=sampler)
print("ready", flush=True)
sys.stdin.readline()
began, cpu, waits, done = time.perf_counter(), time.process_time(), [], []
failures = 0
while True:
    asked = time.perf_counter()
    try:
        trial = study.ask()
        number = trial.suggest_int("number", 0, 1_000_000_000)
        if number > 1_000_000:
            break  # drawn, not enqueued: the queue is empty
        study.tell(trial, [0.5, 1.0])
    except Exception as error:
        failures += 1
        if failures > 200:
            raise
        continue
    waits.append(time.perf_counter() - asked)
    done.append(number)
print(json.dumps([done, waits, time.perf_counter() - began, time.process_time() - cpu]))
"""


def race(code: str, url: str, processes: int) -> dict[str, float]:
    """Pairs a second, CPU a pair, the longest waits and the duplicates of so many processes at one queue."""
    pipe = subprocess.PIPE
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, url, f"w{index}"], stdin=pipe, stdout=pipe, text=True, env=environment
        )
        for index in range(processes)
    ]
    for one in started:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    results = [json.loads(answer) for answer in _answers(started)]
    numbers = [number for done, *_ in results for number in done]
    waits = sorted(wait for _, each, *_ in results for wait in each)
    seconds, cpu = max(result[2] for result in results), sum(result[3] for result in results)
    return {
        "processes": processes,
        "pairs": len(numbers),
        "duplicates": len(numbers) - len(set(numbers)),
        "per_second": len(numbers) / seconds,
        "cpu_ms_a_pair": 1000 * cpu / len(numbers),
        "p50_wait_ms": 1000 * waits[len(waits) // 2],
        "p99_wait_ms": 1000 * waits[int(len(waits) * 0.99)],
    }


def _answers(started: list[subprocess.Popen[str]]) -> list[str]:
    for one in started:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    return [one.communicate()[0] for one in started]


def ours(url: str, processes: int, trials: int) -> dict[str, float]:
    with Store.open(url, create=True) as store:
        store.create_study(study())
        store.enqueue("bench", store.acquire_driver("bench", "bench"), proposals(trials))
    return race(OURS, url, processes)


def optunas(url: str, processes: int, trials: int) -> dict[str, float]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(url)
    made = optuna.create_study(study_name="bench", storage=storage, directions=["maximize", "minimize"])
    for number in range(trials):
        made.enqueue_trial({"number": number})
    return race(OPTUNA, url, processes)


def large(url: str, sizes: tuple[int, ...]) -> list[dict[str, float]]:
    """Time of the operations with so many finished trials in the database, and its size."""
    from autopeft.standing import standing

    rows, dice = [], random.Random(0)
    with Store.open(url, create=True) as store:
        store.create_study(study())
        epoch, have = store.acquire_driver("bench", "bench", 36_000), 0
        for size in sizes:
            store.enqueue("bench", epoch, proposals(size - have + 100, start=have + 100 * (have > 0)), 36_000)
            while store.counts("bench")["COMPLETE"] < size:
                for _ in range(min(500, size - store.counts("bench")["COMPLETE"])):
                    _finish(store, dice)
            have = size
            timed: dict[str, Callable[[], Any]] = {
                "lease_report": lambda: _finish(store, dice),
                "counts": lambda: store.counts("bench"),
                "revision": lambda: store.revision("bench"),
                "status_front": lambda: standing(store.study("bench"), store.trials("bench")),
            }
            found = {f"{name}_ms": 1000 * _cpu_and_wall(call) for name, call in timed.items()}
            rows.append({"trials": size, **found, "bytes": _size(store)})
    return rows


def _finish(store: Store, dice: random.Random) -> None:
    order = store.lease("w", "bench")
    assert order is not None
    values = {"accuracy": dice.random(), "loss": 1.0, PARAMETERS: float(dice.randrange(1000, 100_000))}
    values |= {"train_seconds": 1.0, "evaluate_seconds": 1.0}
    store.report(order.trial_id, order.attempt, Measurement(0, values, ((1, 2.0),), (1, 0) * 50, "x", "a" * 64))


def _cpu_and_wall(call: Callable[[], Any], repeats: int = 5) -> float:
    """The best of some repeats: seconds of wall time, which on PostgreSQL are not this process's CPU."""
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
    return best


def _size(store: Store) -> int:
    if path := store._database.path:
        return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
    with store._database.reading() as connection:
        return int(connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one())


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    print(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 4, 8])
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--optuna-trials", type=int, default=100)
    parser.add_argument("--large", type=int, default=10_000)
    parser.add_argument("--proposers", nargs="*", default=["random", "closed-form"])
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    report: dict[str, Any] = {"dispatch": [], "large": {}, "driver": []}
    with databases() as make:
        for turn, count in enumerate(asked.processes):
            for kind, run, trials in (("autopeft", ours, asked.trials), ("optuna", optunas, asked.optuna_trials)):
                for dialect, url in make(f"{kind}_{turn}_{count}").items():
                    report["dispatch"].append(_shown({"who": kind, "database": dialect, **run(url, count, trials)}))
        for dialect, url in make("large").items() if asked.large else ():
            report["large"][dialect] = [_shown(row) for row in large(url, (500, asked.large))]
        for proposer in asked.proposers:
            for dialect, url in make(f"driver_{proposer.replace('-', '_')}").items():
                report["driver"].append(_shown({"database": dialect, **driver_share(url, proposer)}))
    if asked.json:
        asked.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
