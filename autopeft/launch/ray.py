"""The engine ``ray``: workers as detached actors of a Ray cluster, started on this machine or running elsewhere.

An actor only holds a worker process; Ray never retries a trial. Actors of a driver die with it, so these are detached:
a search whose driver was killed goes on, and its workers leave when nothing is left to do. Fractions of a GPU are
accounting in Ray, so a worker is also told how much of the memory is its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autopeft.errors import ConfigurationError, EvaluationError
from autopeft.launch.deaths import Deaths
from autopeft.launch.devices import WorkerPlan

NAMESPACE = "autopeft"
PATIENCE_SECONDS = 20.0
_ANSWER_SECONDS = 0.2
"""So long an actor is waited for; one that answers later is asked no second time, and counts as running."""


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigurationError("engine ray: the package is missing: pip install 'autopeft[ray]'") from error
    return ray


class Actor:
    """What stands on a node: one worker process, and the end of the actor when it ends."""

    def __init__(self, study: str, artifacts: str, name: str, idle_seconds: float) -> None:
        from autopeft.launch.posts import Post

        self._post = Post(study, artifacts, name, idle_seconds)

    def state(self) -> tuple[bool, str]:
        """Whether the worker runs, and the last line of its log."""
        return self._post.running, self._post.last_line

    def watch(self) -> None:
        """Ends the actor when its worker ends, so that it holds no resources."""
        while self._post.running:
            time.sleep(0.2)
        time.sleep(2.0)  # for the driver's last question
        os._exit(0)

    def drain(self) -> None:
        """Asks the worker to leave after its trial."""
        self._post.drain()

    def stop(self) -> None:
        """Asks the worker to hand its trial back and leave."""
        self._post.stop()


@dataclass(slots=True)
class _Running:
    actor: Any
    started: float
    asked: Any = None

    def state(self) -> tuple[bool, str]:
        """Whether the worker runs, or waits for resources, and its last words; never waits long for an answer."""
        ray = _ray()
        try:
            self.asked = self.asked or self.actor.state.remote()
            if not ray.wait([self.asked], timeout=_ANSWER_SECONDS)[0]:
                return True, ""
            asked, self.asked = self.asked, None
            alive, last_line = ray.get(asked)
        except ray.exceptions.RayError as error:
            return False, str(error).strip().splitlines()[0]
        return bool(alive), str(last_line)


@dataclass(slots=True)
class RayEngine:
    """Workers as detached actors.

    Attributes:
        url: Database; PostgreSQL, where the cluster has several hosts.
        study: Name of the study.
        artifacts: Root folder of artifacts, shared by all hosts.
        plans: One a worker.
        address: Of a running cluster; None starts one on this machine.
        gpus: GPUs of a worker, a fraction of one if it shares; None: one if the cluster has any.
        idle_seconds: A worker leaves after so long without a trial.
    """

    url: str
    study: str
    artifacts: Path
    plans: Sequence[WorkerPlan]
    address: str | None = None
    gpus: float | None = None
    idle_seconds: float = 600.0
    _running: list[_Running] = field(default_factory=list)
    _started_count: int = 0
    _deaths: Deaths = field(default_factory=Deaths)
    _connected: bool = False

    def start(self) -> None:
        """Connects to the cluster, or starts one, and starts one worker a plan.

        Raises:
            ConfigurationError: If Ray is not installed.
            EvaluationError: If the cluster cannot be reached.
        """
        ray = _ray()
        if not ray.is_initialized():
            try:
                ray.init(self.address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False)
            except (ConnectionError, RuntimeError, ValueError) as error:
                where = self.address or "a new one here"
                raise EvaluationError(f"Ray cluster {where}: {str(error).splitlines()[0]}") from error
            self._connected = True
        self._running = [self._spawn() for _ in self.plans]

    def ensure_alive(self) -> None:
        """Starts anew the workers that died, with their actor or by themselves.

        Raises:
            EvaluationError: If workers keep dying right after their start.
        """
        for index, running in enumerate(self._running):
            alive, last_line = running.state()
            if not alive:
                self._deaths.died(running.started, last_line)
                self._running[index] = self._spawn()

    @property
    def alive_count(self) -> int:
        """Workers that run, or wait for resources, now."""
        return sum(running.state()[0] for running in self._running)

    def drain(self) -> None:
        """Asks every worker to finish its trial and leave."""
        for running in self._running:
            running.actor.drain.remote()

    def stop(self) -> None:
        """Ends all workers; the cluster goes on, unless it was started here."""
        ray = _ray()
        for running in self._running:
            running.actor.stop.remote()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.alive_count and time.monotonic() < deadline:
            time.sleep(0.2)
        for running in self._running:
            ray.kill(running.actor)
        self._running.clear()
        if self._connected:
            ray.shutdown()
            self._connected = False

    def _spawn(self) -> _Running:
        ray = _ray()
        name = f"ray-{os.getpid()}-{time.time_ns() // 1_000_000}-{self._started_count}"
        self._started_count += 1
        gpus = self.gpus if self.gpus is not None else min(1, ray.cluster_resources().get("GPU", 0))
        variables = {"AUTOPEFT_DB": self.url, "OMP_NUM_THREADS": str(self.plans[0].threads)}
        if 0 < gpus < 1:
            variables["AUTOPEFT_GPU_FRACTION"] = str(gpus)
        options = {"name": name, "namespace": NAMESPACE, "lifetime": "detached", "max_concurrency": 4}
        resources = {"num_cpus": self.plans[0].threads, "num_gpus": gpus, "max_restarts": 0}
        kind = ray.remote(Actor).options(**options, **resources, runtime_env={"env_vars": variables})
        actor = kind.remote(self.study, str(self.artifacts), name, self.idle_seconds)
        actor.watch.remote()
        return _Running(actor, time.monotonic())
