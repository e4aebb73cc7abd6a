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
