"""A worker process as others hold it from outside: what an actor or a job runs on its host.

The database's address is in the environment of the host process, never in an argument. No engine's package is
imported here.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from threading import current_thread, main_thread

from autopeft.launch import devices
from autopeft.launch.devices import WorkerPlan, child_environment, visible_gpus

IDLE_SECONDS = 600.0
"""A worker that nobody stops, because its driver was killed, leaves after so long without a trial."""

_LOOK_SECONDS = 0.2
_LAST_BYTES = 4000


class Post:
    """One worker process on this host.

    Args:
        study: Study whose trials it takes.
        artifacts: Root folder of artifacts; the log is ``<artifacts>/<study>/logs/<name>.log``.
        name: Of the worker.
        idle_seconds: As of the worker.
        more: Further arguments of the worker.
    """

    def __init__(
        self, study: str, artifacts: str, name: str, idle_seconds: float = IDLE_SECONDS, more: Sequence[str] = ()
    ) -> None:
        device = "cuda:0" if visible_gpus() else "cpu"
        plan = WorkerPlan(device, max(1, int(os.environ.get("OMP_NUM_THREADS") or 1)))
        self._log = Path(artifacts) / study / "logs" / f"{name}.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        command = devices.worker_command("run", "--study", study, "--worker-id", f"{name}-{socket.gethostname()}")
        command += ["--device", device, "--threads", str(plan.threads), "--artifacts", artifacts, *more]
        command += ["--idle-seconds", str(idle_seconds), "--parent", str(os.getpid())]
        environment = child_environment(os.environ["AUTOPEFT_DB"], plan)
        environment["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        with self._log.open("ab") as stream:
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
            )

    @property
    def running(self) -> bool:
        """Whether the worker has not ended."""
        return self._process.poll() is None

    @property
    def status(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    @property
    def last_line(self) -> str:
        """Of its log."""
        text = self._log.read_bytes()[-_LAST_BYTES:].decode(errors="replace").strip()
        return text.splitlines()[-1] if text else "it left no message"

    def drain(self) -> None:
        """Asks it to leave after the trial at hand."""
        if self.running:
            self._process.send_signal(signal.SIGUSR1)

    def stop(self) -> None:
        """Asks it to hand its trial back and leave."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)


def stand(study: str, artifacts: str, name: str, marks: str) -> str:
    """Runs a worker until it ends, and obeys the files ``drain`` and ``stop`` in the folder ``marks``.

    What a Slurm job is: signals that end the job hand the worker's trial back. The worker's last line comes back.

    Raises:
        RuntimeError: If the worker failed, with its last line.
    """
    post = Post(study, artifacts, name)
    if current_thread() is main_thread():
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, lambda *_: post.stop())
    drained = False
    while post.running:
        if Path(marks, "stop").exists():
            post.stop()
        elif not drained and Path(marks, "drain").exists():
            post.drain()
            drained = True
        time.sleep(_LOOK_SECONDS)
    if post.status not in (0, -signal.SIGTERM):  # the latter: stopped before it was up
        raise RuntimeError(post.last_line)
    return post.last_line
