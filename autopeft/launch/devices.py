"""Where workers run on a host: devices, threads, and the environment and command of a worker process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

from autopeft.errors import ConfigurationError

MEMORY_PER_WORKER_BYTES = 1_500_000_000


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """Where one worker runs.

    Attributes:
        device: ``cpu`` or ``cuda:0``.
        threads: CPU threads for torch.
        visible_gpu: What CUDA_VISIBLE_DEVICES is pinned to, several with commas between; or None.
        pack: Most trials that it trains together.
    """

    device: str
    threads: int
    visible_gpu: str | None = None
    pack: int = 1


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


@dataclass(frozen=True, slots=True)
class Gpus:
    """The GPUs that this process may use, by the one with the least memory.

    Attributes:
        memory: Bytes.
        halves: Whether all compute in bfloat16.
    """

    memory: int
    halves: bool


def describe_gpus() -> Gpus | None:
    """What the GPUs here are, without loading torch; None if there are none or nvidia-smi does not say."""
    gpus, tool = visible_gpus(), shutil.which("nvidia-smi")
    if not gpus or tool is None:
        return None
    command = [tool, f"--id={','.join(gpus)}", "--query-gpu=memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        lines = [line.split(",") for line in answer.stdout.strip().splitlines()]
        return Gpus(min(int(m) for m, _ in lines) * 2**20, all(float(capability) >= 8 for _, capability in lines))
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def plan_workers(text: str, gpus_each: int = 1) -> list[WorkerPlan]:
    """One plan a worker: one worker a group of GPUs, else CPU workers that share the cores without fighting for them.

    Args:
        text: A number, or ``auto``: as many as there are groups of GPUs, or as cores and memory allow (at most 8).
        gpus_each: GPUs that hold one worker's backbone between them.

    Raises:
        ConfigurationError: If it is neither, or there are fewer GPUs than a worker is to have.
    """
    cores = len(os.sched_getaffinity(0))
    gpus = visible_gpus()
    if gpus_each > max(1, len(gpus)):
        raise ConfigurationError(
            f"gpus per worker {gpus_each}: this machine shows {len(gpus)} GPU(s); give --gpus-per-worker 1, or "
            "--engine ray or slurm where the GPUs are elsewhere"
        )
    gpus = [",".join(gpus[first : first + gpus_each]) for first in range(0, len(gpus) - gpus_each + 1, gpus_each)]
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
