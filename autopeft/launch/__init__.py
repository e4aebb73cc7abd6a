"""Engines start, scale and stop workers and nothing else: an engine knows no trials and retries none.

What a worker does is between it and the record. ``local`` runs child processes of this machine, ``ray`` detached
actors of a cluster, ``slurm`` jobs; anything else may start ``autopeft worker`` by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from autopeft.errors import ConfigurationError
from autopeft.launch.devices import (
    Gpus,
    WorkerPlan,
    child_environment,
    describe_gpus,
    plan_workers,
    visible_gpus,
    worker_command,
)
from autopeft.launch.local import LocalEngine

__all__ = [
    "ENGINES",
    "Engine",
    "Gpus",
    "LocalEngine",
    "WorkerPlan",
    "child_environment",
    "describe_gpus",
    "make_engine",
    "plan_workers",
    "require_startable",
    "visible_gpus",
    "worker_command",
]

ENGINES: Mapping[str, str] = {
    "local": "child processes of this machine",
    "ray": "detached actors of a Ray cluster (pip install 'autopeft[ray]')",
    "slurm": "Slurm jobs through submitit (pip install 'autopeft[slurm]')",
}


class Engine(Protocol):
    """Starts and stops the workers of one study."""

    @property
    def plans(self) -> Sequence[WorkerPlan]:
        """One a worker."""

    def start(self) -> None:
        """Starts one worker a plan."""

    def ensure_alive(self) -> None:
        """Starts anew what died; ``EvaluationError`` if workers keep dying right after their start."""

    @property
    def alive_count(self) -> int:
        """Workers that run, or wait to run, now."""

    def drain(self) -> None:
        """Asks every worker to finish its trial and leave."""

    def stop(self) -> None:
        """Ends all workers: their trials go back to the queue unblamed."""


def require_startable(engine: str, workers: str, gpus: int = 1) -> None:
    """Nothing, if there is such an engine, and ``workers`` is a number of workers for it; asked before any writing.

    Raises:
        ConfigurationError: If it is not so.
    """
    if engine not in ENGINES:
        raise ConfigurationError(f"engine {engine!r}: expected one of {', '.join(ENGINES)}")
    plan_workers(workers, gpus if engine == "local" else 1)


def make_engine(
    name: str,
    url: str,
    study: str,
    artifacts: Path,
    workers: str,
    address: str | None = None,
    cache: str | None = None,
    gpus: int = 1,
    pack: int = 1,
) -> Engine:
    """The engine of that name, not started yet.

    Args:
        name: One of ``ENGINES``.
        url: Database.
        study: Study whose trials its workers take.
        artifacts: Root folder of artifacts; shared, where workers sit on several hosts.
        workers: A number, or ``auto`` (for ``local``: as many as this machine can bear; elsewhere one).
        address: Of a running Ray cluster, or the cluster that submitit is to use (``slurm``, ``local``).
        cache: How workers of ``local`` keep hidden states, if not as the study says; elsewhere it is the study's.
        gpus: GPUs that hold one worker's backbone between them.
        pack: Most trials that a worker of ``local`` trains together; elsewhere it trains one at a time.

    Raises:
        ConfigurationError: If there is no such engine, its packages are missing, or the number is none.
    """
    require_startable(name, workers, gpus)
    if name == "local":
        plans = [replace(plan, pack=pack) for plan in plan_workers(workers, gpus)]
        return LocalEngine(url, study, artifacts, plans, cache)
    count = 1 if workers == "auto" else len(plan_workers(workers))
    if name == "ray":
        from autopeft.launch.ray import RayEngine

        return RayEngine(url, study, artifacts, [WorkerPlan("auto", 1)] * count, address, gpus if gpus > 1 else None)
    from autopeft.launch.slurm import SlurmEngine

    engine = SlurmEngine(url, study, artifacts, [WorkerPlan("auto", 1)] * count, address or "slurm")
    if gpus > 1:
        engine.parameters["gpus_per_node"] = gpus
    return engine
