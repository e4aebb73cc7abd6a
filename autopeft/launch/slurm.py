"""The engine ``slurm``: workers as jobs through submitit, which also runs them as local processes for tests.

A job only holds a worker process; a job that ends, is preempted or reaches its time limit is submitted anew, and its
trial is the record's concern. Stopping goes through files in a folder that the jobs watch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autopeft.errors import ConfigurationError
from autopeft.launch.deaths import Deaths
from autopeft.launch.devices import WorkerPlan
from autopeft.launch.posts import stand

PATIENCE_SECONDS = 30.0


@dataclass(slots=True)
class _Running:
    job: Any
    started: float


@dataclass(slots=True)
class SlurmEngine:
    """Workers as jobs.

    Attributes:
        url: Database; PostgreSQL, where jobs run on several hosts. It travels in the environment (``--export=ALL``).
        study: Name of the study.
        artifacts: Root folder of artifacts, shared by all hosts.
        plans: One a worker.
        cluster: ``slurm``, or ``local`` for processes of this machine.
        parameters: For submitit: ``timeout_min``, ``slurm_partition``, ``gpus_per_node`` and so on.
    """

    url: str
    study: str
    artifacts: Path
    plans: Sequence[WorkerPlan]
    cluster: str = "slurm"
    parameters: dict[str, Any] = field(default_factory=lambda: {"timeout_min": 24 * 60})
    _running: list[_Running] = field(default_factory=list)
    _started_count: int = 0
    _deaths: Deaths = field(default_factory=Deaths)
    _marks: Path | None = None

    def start(self) -> None:
        """Submits one job a plan.

        Raises:
            ConfigurationError: If submitit is not installed, or there is no such cluster.
        """
        self._marks = self.artifacts.absolute() / self.study / "jobs" / f"{os.getpid()}-{time.time_ns()}"
        self._marks.mkdir(parents=True)
        self._running = [self._submit() for _ in self.plans]

    def ensure_alive(self) -> None:
        """Submits anew what ended.

        Raises:
            EvaluationError: If workers keep dying right after their start.
        """
        for index, running in enumerate(self._running):
            if running.job.done():
                self._deaths.died(running.started, _last_words(running.job))
                self._running[index] = self._submit()

    @property
    def alive_count(self) -> int:
        """Jobs that run, or wait to run, now."""
        return sum(not running.job.done() for running in self._running)

    def drain(self) -> None:
        """Asks every worker to finish its trial and leave."""
        self._mark("drain")

    def stop(self) -> None:
        """Ends all workers; what does not end, or has not begun, is cancelled."""
        self._mark("stop")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.alive_count and time.monotonic() < deadline:
            time.sleep(0.2)
        for running in self._running:
            if not running.job.done():
                running.job.cancel(check=False)
        self._running.clear()

    def _mark(self, what: str) -> None:
        if self._marks is not None:
            (self._marks / what).touch()

    def _submit(self) -> _Running:
        assert self._marks is not None
        name = f"slurm-{os.getpid()}-{time.time_ns() // 1_000_000}-{self._started_count}"
        self._started_count += 1
        executor = self._executor(self._marks)
        with _address(self.url):
            job = executor.submit(stand, self.study, str(self.artifacts.absolute()), name, str(self._marks))
        return _Running(job, time.monotonic())

    def _executor(self, folder: Path) -> Any:
        try:
            import submitit
        except ImportError as error:
            raise ConfigurationError("engine slurm: submitit is missing: pip install 'autopeft[slurm]'") from error
        try:
            executor = submitit.AutoExecutor(folder=folder / "submitit", cluster=self.cluster)
            executor.update_parameters(name=f"autopeft-{self.study}", **self.parameters)
        except (ValueError, RuntimeError) as error:
            raise ConfigurationError(f"engine slurm: cluster {self.cluster!r}: {error}") from error
        return executor


@contextmanager
def _address(url: str) -> Iterator[None]:
    """The database in the environment while a job is submitted: nowhere in its files or arguments."""
    before = os.environ.get("AUTOPEFT_DB")
    os.environ["AUTOPEFT_DB"] = url
    try:
        yield
    finally:
        if before is None:
            del os.environ["AUTOPEFT_DB"]
        else:
            os.environ["AUTOPEFT_DB"] = before


def _last_words(job: Any) -> str:
    said = (job.stderr() or "").strip().splitlines()
    return said[-1] if said else f"job {job.job_id} left no message"
