"""Engines start, scale and stop workers and nothing else: an engine knows no trials and retries none.

What a worker does is between it and the record. ``local`` runs child processes of this machine, ``ray`` detached
actors of a cluster, ``slurm`` jobs; anything else may start ``autopeft worker`` by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from autopeft.errors import ConfigurationError
from autopeft.launch.devices import WorkerPlan, child_environment, plan_workers, visible_gpus, worker_command
from autopeft.launch.local import LocalEngine

__all__ = [
    "ENGINES",
    "Engine",
    "LocalEngine",
    "WorkerPlan",
    "child_environment",
    "make_engine",
    "plan_workers",
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


def make_engine(name: str, url: str, study: str, artifacts: Path, workers: str, address: str | None = None) -> Engine:
    """The engine of that name, not started yet.

    Args:
        name: One of ``ENGINES``.
        url: Database.
        study: Study whose trials its workers take.
        artifacts: Root folder of artifacts; shared, where workers sit on several hosts.
        workers: A number, or ``auto`` (for ``local``: as many as this machine can bear; elsewhere one).
        address: Of a running Ray cluster, or the cluster that submitit is to use (``slurm``, ``local``).

    Raises:
        ConfigurationError: If there is no such engine, its packages are missing, or the number is none.
    """
    if name == "local":
        return LocalEngine(url, study, artifacts, plan_workers(workers))
    count = 1 if workers == "auto" else len(plan_workers(workers))
    if name == "ray":
        from autopeft.launch.ray import RayEngine

        return RayEngine(url, study, artifacts, [WorkerPlan("auto", 1)] * count, address)
    if name == "slurm":
        from autopeft.launch.slurm import SlurmEngine

        return SlurmEngine(url, study, artifacts, [WorkerPlan("auto", 1)] * count, address or "slurm")
    raise ConfigurationError(f"engine {name!r}: expected one of {', '.join(ENGINES)}")
