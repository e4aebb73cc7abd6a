"""The engine ``local``: workers as child processes of this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autopeft.launch import devices
from autopeft.launch.deaths import Deaths
from autopeft.launch.devices import WorkerPlan, child_environment


@dataclass(slots=True)
class _Running:
    plan: WorkerPlan
    process: subprocess.Popen[bytes]
    log: Path
    started: float


@dataclass(slots=True)
class LocalEngine:
    """Workers as child processes that die with their parent.

    Attributes:
        url: Database, handed over by the environment.
        study: Name of the study.
        artifacts: Root folder of artifacts; logs go to ``<artifacts>/<study>/logs``.
        plans: One a worker.
        cache: How workers keep hidden states; None: as the study says.
    """

    url: str
    study: str
    artifacts: Path
    plans: Sequence[WorkerPlan]
    cache: str | None = None
    _running: list[_Running] = field(default_factory=list)
    _started_count: int = 0
    _deaths: Deaths = field(default_factory=Deaths)

    def start(self) -> None:
        """Starts one worker a plan."""
        for plan in self.plans:
            self._running.append(self._spawn(plan))

    def ensure_alive(self) -> None:
        """Restarts workers that died.

        Raises:
            EvaluationError: If workers keep dying right after their start; the message ends with their last words.
        """
        for index, running in enumerate(self._running):
            if running.process.poll() is None:
                continue
            self._deaths.died(running.started, f"{_last_line(running.log)} (log: {running.log})")
            self._running[index] = self._spawn(running.plan)

    @property
    def alive_count(self) -> int:
        """Workers that run now."""
        return sum(running.process.poll() is None for running in self._running)

    def drain(self) -> None:
        """Asks every worker to finish its trial and leave."""
        self._signal(signal.SIGUSR1)

    def stop(self, patience_seconds: float = 20.0) -> None:
        """Ends all workers: their trials go back to the queue unblamed; what does not end is killed."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + patience_seconds
        for running in self._running:
            try:
                running.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                running.process.kill()
                running.process.wait()
        self._running.clear()

    def _signal(self, number: signal.Signals) -> None:
        for running in self._running:
            if running.process.poll() is None:
                running.process.send_signal(number)

    def _spawn(self, plan: WorkerPlan) -> _Running:
        name = f"local-{socket.gethostname()}-{os.getpid()}-{self._started_count}"
        self._started_count += 1
        log = self.artifacts / self.study / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        command = devices.worker_command("run", "--study", self.study, "--worker-id", name, "--device", plan.device)
        command += ["--threads", str(plan.threads), "--artifacts", str(self.artifacts), "--parent", str(os.getpid())]
        command += ["--cache", self.cache] if self.cache is not None else []
        command += ["--pack", str(plan.pack)] if plan.pack > 1 else []
        with log.open("ab") as stream:
            process = subprocess.Popen(
                command,
                env=child_environment(self.url, plan),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,  # Ctrl-C on the terminal is the driver's to handle
            )
        return _Running(plan, process, log, time.monotonic())


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it left no message"
