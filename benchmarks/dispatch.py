"""What the record costs: lease and report against Optuna's RDBStorage, and ten thousand trials in one database.

``python benchmarks/dispatch.py [--processes 1 2 4 8] [--trials 400] [--large 10000] [--json FILE]`` runs everything on
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
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autopeft.budget import Budget
from autopeft.store import Store
from autopeft.study import PARAMETERS, Direction, Fidelity, Measurement, ModelSpec, Objective, Origin, Proposal, Study
from search_spaces.backbone import Backbone, ModuleShape
from search_spaces.configuration import uniform
from search_spaces.methods.lora import Lora
from search_spaces.presets import layerwise

ROLES = ("query", "key", "value", "output", "up", "down")

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
    while True:
        asked = time.perf_counter()
        order = store.lease(name, "bench")
        if order is None:
            break
        store.report(order.trial_id, order.attempt, Measurement(0, values, ((1, 2.0),), (1, 0) * 50, "x", "a" * 64))
        waits.append(time.perf_counter() - asked)
        done.append(order.number)
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


def backbone(layers: int = 6) -> Backbone:
    def layer(index: int) -> tuple[ModuleShape, ...]:
        return tuple(ModuleShape(role, f"layer.{index}.{role}", 384, 384) for role in ROLES)

    return Backbone("bench", "bert", 384, 22_713_216, tuple(layer(index) for index in range(layers)))


def study() -> Study:
    shapes = backbone()
    return Study(
        name="bench",
        model=ModelSpec("bench", "mean", "0" * 64),
        backbone=shapes,
        task={"source": "aspects"},
        task_name="bench",
        metric="accuracy",
        quality_floor=0.5,
        space=layerwise(shapes, (1e-4, 1e-2)),
        objectives=(Objective("accuracy", Direction.MAXIMISE), Objective(PARAMETERS, Direction.MINIMISE)),
        budget=Budget(10_000_000, "10m"),
        fidelity=Fidelity(2, 4, 16),
        control_learning_rate=1e-3,
        proposer="random",
        initial_count=2,
        trials=10_000,
        hours=None,
        seed=0,
    )


def proposals(count: int, start: int = 0) -> list[Proposal]:
    shapes = backbone()
    found = []
    for index in range(start, start + count):
        block, step = divmod(index, 5000)
        plan = uniform(shapes, ("query", "value"), Lora(1 + block, 16.0), round(1e-3 + 1e-6 * step, 6))
        found.append(Proposal(plan, Origin.MODEL))
    return found


@contextmanager
def databases() -> Iterator[Callable[[str], dict[str, str]]]:
    """Makes empty databases: dialect → address, for the name of each."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import pgserver
            import psycopg

            server = pgserver.get_server(str(Path(folder) / "pg"))
        except ImportError:
            server = None

        def make(name: str) -> dict[str, str]:
            found = {"sqlite": f"sqlite:///{folder}/{name}.db"}
            if server is not None:
                with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                    connection.execute(f"CREATE DATABASE {name}")
                address = server.get_uri(name).replace("postgresql://", "postgresql+psycopg://")
                found["postgresql"] = address
            return found

        try:
            yield make
        finally:
            if server is not None:
                server.cleanup()


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
    path = store._database.path
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*")) if path else 0


def driver_share(url: str, workers: int = 16, trials: int = 96, seconds: float = 1.0) -> dict[str, float]:
    """CPU seconds of the driver as a share of what its workers' time is, with trials of ``seconds``."""
    import threading
    from dataclasses import replace

    from autopeft.driver import Driver, Interrupt
    from autopeft.launch import WorkerPlan

    leave = threading.Event()

    def work(name: str) -> None:
        with Store.open(url) as store:
            while not leave.is_set():
                order = store.lease(name, "bench")
                if order is None:
                    time.sleep(0.1)
                    continue
                time.sleep(seconds)
                values = {"accuracy": 0.5 + order.number / 1e4, "loss": 1.0, PARAMETERS: 1000.0 + order.number}
                values |= {"train_seconds": seconds, "evaluate_seconds": 0.0}
                store.report(order.trial_id, order.attempt, Measurement(0, values))

    class Threads:
        plans = [WorkerPlan("cpu", 1)] * workers
        alive_count = workers

        def start(self) -> None:
            for index in range(workers):
                threading.Thread(target=work, args=(f"w{index}",), daemon=True).start()

        def ensure_alive(self) -> None:
            pass

        def drain(self) -> None:
            pass

        def stop(self) -> None:
            leave.set()

    asked = replace(study(), trials=trials, proposer="random")
    with Store.open(url, create=True) as store:
        store.create_study(asked)
        began, cpu = time.perf_counter(), time.thread_time()
        Driver(store, asked, Threads(), lambda _progress: None, Interrupt()).run()  # type: ignore[arg-type]
        wall, used = time.perf_counter() - began, time.thread_time() - cpu
        done = len(store.trials("bench"))
    ideal = done * seconds / workers
    return {"wall_seconds": wall, "driver_cpu_seconds": used, "driver_share": used / wall, "workers_busy": ideal / wall}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--optuna-trials", type=int, default=100)
    parser.add_argument("--large", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    report: dict[str, Any] = {"dispatch": [], "large": {}, "driver": {}}
    with databases() as make:
        for count in asked.processes:
            for kind, run, trials in (("autopeft", ours, asked.trials), ("optuna", optunas, asked.optuna_trials)):
                for dialect, url in make(f"{kind}_{count}").items():
                    row = {"who": kind, "database": dialect, **run(url, count, trials)}
                    report["dispatch"].append(row)
                    print(
                        " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()),
                        flush=True,
                    )
        for dialect, url in make("large").items() if asked.large else ():
            report["large"][dialect] = large(url, (500, asked.large))
            print(dialect, *report["large"][dialect], sep="\n  ", flush=True)
        for dialect, url in make("driver").items():
            report["driver"][dialect] = driver_share(url)
            print(dialect, report["driver"][dialect], flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
