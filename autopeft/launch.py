"""Engines start and stop workers and nothing else: here ``local``, child processes of this machine.

An engine knows no trials: what a worker does is between it and the record.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autopeft.errors import ConfigurationError, EvaluationError

MEMORY_PER_WORKER_BYTES = 1_500_000_000
QUICK_DEATH_SECONDS = 30.0
QUICK_DEATHS_LIMIT = 3
"""So many workers in a row that die within ``QUICK_DEATH_SECONDS`` of their start stop the search."""


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """Where one worker runs.

    Attributes:
        device: ``cpu`` or ``cuda:0``.
        threads: CPU threads for torch.
        visible_gpu: What CUDA_VISIBLE_DEVICES is pinned to, or None.
    """

    device: str
    threads: int
    visible_gpu: str | None = None


def visible_gpus() -> list[str]:
    """Identifiers of the GPUs that this process may use, without loading torch."""
    pinned = os.environ.get("CUDA_VISIBLE_DEVICES")
    if pinned is not None:
        return [part.strip() for part in pinned.split(",") if part.strip() and part.strip() != "-1"]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, "--query-gpu=index", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return answer.stdout.split() if answer.returncode == 0 else []


def plan_workers(text: str) -> list[WorkerPlan]:
    """One plan a worker: one worker a GPU, else CPU workers that share the cores without fighting for them.

    Args:
        text: A number, or ``auto``: as many as there are GPUs, or as cores and memory allow (at most 8).

    Raises:
        ConfigurationError: If it is neither.
    """
    cores = len(os.sched_getaffinity(0))
    gpus = visible_gpus()
    if text == "auto":
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        count = len(gpus) or max(1, min(cores, memory // MEMORY_PER_WORKER_BYTES, 8))
    elif text.isdigit() and 1 <= int(text) <= 1024:
        count = int(text)
    else:
        raise ConfigurationError(f"workers {text!r}: expected a whole number from 1 to 1024, or auto")
    threads = max(1, cores // count)
    if gpus:
        return [WorkerPlan("cuda:0", threads, gpus[index % len(gpus)]) for index in range(count)]
    return [WorkerPlan("cpu", threads)] * count


def child_environment(url: str, plan: WorkerPlan) -> dict[str, str]:
    """The environment of a worker: database, threads and device; nothing secret in its arguments."""
    environment = {**os.environ, "AUTOPEFT_DB": url, "OMP_NUM_THREADS": str(plan.threads)}
    environment |= {"MKL_NUM_THREADS": str(plan.threads), "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    if plan.visible_gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = plan.visible_gpu
    elif plan.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return environment


def worker_command(*arguments: str) -> list[str]:
    """``python -P -m workers …``: -P, so that a folder ``workers/`` where the user stands is not taken for ours."""
    return [sys.executable, "-P", "-m", "workers", *arguments]


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
    """

    url: str
    study: str
    artifacts: Path
    plans: Sequence[WorkerPlan]
    _running: list[_Running] = field(default_factory=list)
    _started_count: int = 0
    _quick_deaths: int = 0

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
            quick = time.monotonic() - running.started < QUICK_DEATH_SECONDS
            self._quick_deaths = self._quick_deaths + 1 if quick else 0
            if self._quick_deaths >= QUICK_DEATHS_LIMIT:
                raise EvaluationError(
                    f"{self._quick_deaths} workers in a row died right after their start: "
                    f"{_last_line(running.log)} (log: {running.log})"
                )
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
        command = worker_command("run", "--study", self.study, "--worker-id", name, "--device", plan.device)
        command += ["--threads", str(plan.threads), "--artifacts", str(self.artifacts), "--parent", str(os.getpid())]
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
