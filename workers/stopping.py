"""How a worker is asked to end: at the next step (SIGTERM, SIGINT, SIGUSR2, death of the parent) or after its trial.

SIGUSR1 is the latter; SIGUSR2 is what Slurm sends before a job's time is over.

Signal handlers only set flags; a lock taken in a handler could be one that the interrupted code holds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from dataclasses import dataclass

from autopeft.study import Checkpoint

_PR_SET_PDEATHSIG = 1
_SLICE_SECONDS = 0.1


class Preempted(Exception):  # noqa: N818 - an order to end, not an error
    """The worker must end, or the trial was cancelled: hand it back unblamed.

    Args:
        reason: In one line.
        keep: Whether somebody will go on with the trial, so that a checkpoint is worth its file.
    """

    def __init__(self, reason: str, *, keep: bool = False) -> None:
        super().__init__(reason)
        self.keep = keep
        self.checkpoint: Checkpoint | None = None
        """Where the trial stands, if that was written."""


@dataclass(slots=True)
class Stop:
    """What was asked of this worker so far.

    Attributes:
        at_once: End at the next step.
        draining: End after the trial at hand.
        parent: Process whose death means to end at once, or None.
        until: Time on the monotonic clock after which no trial is taken, or None.
    """

    at_once: bool = False
    draining: bool = False
    parent: int | None = None
    until: float | None = None

    @property
    def now(self) -> bool:
        """Whether the trial at hand must be given up."""
        if self.parent is not None and os.getppid() != self.parent:
            self.at_once = True
        return self.at_once

    @property
    def requested(self) -> bool:
        """Whether no further trial may be taken."""
        late = self.until is not None and time.monotonic() >= self.until
        return self.draining or late or self.now

    def check(self) -> None:
        """Nothing, unless the worker must end at once.

        Raises:
            Preempted: If it must.
        """
        if self.now:
            raise Preempted("the worker was asked to stop", keep=True)

    def wait(self, seconds: float) -> None:
        """Sleeps, at most until the worker is asked to end."""
        deadline = time.monotonic() + seconds
        while not self.requested and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, _SLICE_SECONDS))


def obey_signals(parent: int | None) -> Stop:
    """A ``Stop`` that the signals of this process set, and the death of ``parent``."""
    stop = Stop(parent=parent)

    def end(_number: int, _frame: object) -> None:
        stop.at_once = True

    def drain(_number: int, _frame: object) -> None:
        stop.draining = True

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGUSR2, end)
    signal.signal(signal.SIGUSR1, drain)
    if parent is not None and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    return stop
