"""``python -P -m workers run | train | probe | time-step``: the process that the command line and other engines start.

``run`` is a supervisor without torch, which starts ``child`` for the training. The database's address comes by
``AUTOPEFT_DB``, never by argument: arguments are there for every user to see.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from autopeft.errors import AutopeftError, ConfigurationError


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or that of the error, whose one line stands last on standard error."""
    asked = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    try:
        if asked.command == "run":
            _run(asked)
        elif asked.command == "child":
            from workers.child import run_child

            run_child(asked.device, asked.threads, asked.artifacts, asked.parent, asked.cache)
        elif asked.command == "train":
            _train(asked)
        elif asked.command == "probe":
            _probe(asked)
        else:
            _time_step(asked)
    except AutopeftError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:  # what was kept until now is there
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -P -m workers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="take trials from the queue until asked to end")
    run.add_argument("--study", help="study whose trials are taken; any, if not given")
    run.add_argument(
        "--worker-id", help="name of this worker, unique in the database; host, process and time if not given"
    )
    run.add_argument("--idle-seconds", type=float, default=0.0, help="end after so long without a trial; 0: never")
    run.add_argument("--max-trials", type=int, help="end after so many trials")
    run.add_argument("--max-seconds", type=float, help="take no trial after so long")
    run.add_argument("--lease-seconds", type=float, default=60.0, help="how long a trial is kept without a heartbeat")
    run.add_argument("--hang-seconds", type=float, default=600.0, help="shortest silence that counts as a hang")
    run.add_argument("--pack", type=int, default=1, help="most trials that are trained together")
    child = commands.add_parser("child", help="train what a supervisor sends")
    for command in (run, child):
        command.add_argument("--device", default="cpu", help="cpu or cuda:N")
        command.add_argument("--threads", type=int, default=1, help="CPU threads")
        command.add_argument("--artifacts", type=Path, required=True, help="root folder of artifacts")
        command.add_argument("--cache", choices=["off", "fp32", "fp16", "auto"], help="as the study says, if not given")
        command.add_argument("--parent", type=int, help="process whose death ends this one")
    for name, what in (
        ("train", "train one configuration in full"),
        ("probe", "learn where adapters matter"),
        ("time-step", "measure a step and a scored row"),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("--plan", required=True, help="JSON file, or - for standard input")
    return parser


def _run(asked: argparse.Namespace) -> None:
    from workers.stopping import obey_signals

    stop = obey_signals(asked.parent)
    url = os.environ.get("AUTOPEFT_DB")
    if not url:
        raise ConfigurationError("AUTOPEFT_DB is not set: expected the database's address, like sqlite:///autopeft.db")
    if asked.max_seconds is not None:
        stop.until = time.monotonic() + asked.max_seconds
    from autopeft.store import Store
    from workers.loop import WorkerSettings, run_worker
    from workers.pack.supervisor import PackSupervised
    from workers.pack.working import PackWorker
    from workers.supervisor import Supervised, child_command

    settings = WorkerSettings(
        worker=asked.worker_id or f"{socket.gethostname()}-{os.getpid()}-{time.time_ns() // 1_000_000}",
        study=asked.study,
        device=asked.device,
        idle_seconds=asked.idle_seconds,
        lease_seconds=asked.lease_seconds,
        max_trials=asked.max_trials,
        pack=asked.pack,
    )
    command = child_command(asked.device, asked.threads, asked.artifacts, asked.cache)
    if asked.pack > 1:
        run_worker(lambda: Store.open(url), settings, PackSupervised(command, asked.hang_seconds), stop, PackWorker)
    else:
        run_worker(lambda: Store.open(url), settings, Supervised(command, asked.hang_seconds), stop)


def _train(asked: argparse.Namespace) -> None:
    from workers.environment import prepare
    from workers.plans import read_plan, threads_of

    plan = read_plan(asked.plan)
    prepare(threads_of(plan))
    from autopeft.final import FinalPlan
    from workers.final import train_in_full

    train_in_full(FinalPlan.from_json(plan))


def _probe(asked: argparse.Namespace) -> None:
    from workers.environment import prepare
    from workers.plans import read_plan, threads_of

    plan = read_plan(asked.plan)
    prepare(threads_of(plan))
    from workers.probing import probe

    print(json.dumps(probe(plan)))


def _time_step(asked: argparse.Namespace) -> None:
    from workers.environment import prepare
    from workers.plans import read_plan, threads_of

    plan = read_plan(asked.plan)
    prepare(threads_of(plan))
    from workers.timing import time_step

    print(json.dumps(time_step(plan)))


if __name__ == "__main__":
    sys.exit(main())
