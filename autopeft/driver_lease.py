"""The right to drive a study, which one process has at a time, and what only its holder may write.

A driver that was taken for dead finds out at its next write: its epoch is over. What is to be written is decided
elsewhere.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autopeft.duties import POLL_SECONDS
from autopeft.errors import LeaseLostError, StudyDrivenError
from autopeft.store import Store
from autopeft.study import Proposal

LEASE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class DriverLease:
    """The lease of one driver at one study.

    Attributes:
        store: The record.
        study: Name of the study.
        epoch: Number of this lease; a later one ends it.
    """

    store: Store
    study: str
    epoch: int

    @classmethod
    def acquire(cls, store: Store, study: str) -> DriverLease:
        """The lease; a driver of this host that is dead is waited out, which its lease bounds.

        Raises:
            StudyDrivenError: If the study's driver lives, or sits on another host.
        """
        host = socket.gethostname()
        deadline = time.monotonic() + LEASE_SECONDS + 2
        while True:
            try:
                return cls(store, study, store.acquire_driver(study, f"{host}:{os.getpid()}", LEASE_SECONDS))
            except StudyDrivenError as error:
                owner_host, _, process = error.owner.rpartition(":")
                if owner_host != host or _is_alive(process) or time.monotonic() > deadline:
                    raise
            time.sleep(POLL_SECONDS)

    def renew(self) -> None:
        """Keeps the lease, and ends the attempts of workers that are gone.

        Raises:
            LeaseLostError: If another driver has the study.
        """
        self.store.renew_driver(self.study, self.epoch, LEASE_SECONDS)
        self.store.reap(self.study)

    def enqueue(self, proposals: Sequence[Proposal]) -> list[int]:
        """Numbers of the new trials.

        Raises:
            LeaseLostError: If another driver has the study, or it takes no trials any more.
        """
        return self.store.enqueue(self.study, self.epoch, proposals, LEASE_SECONDS)

    def queue(self, promoted: Sequence[int], proposals: Sequence[Proposal]) -> list[int] | None:
        """Numbers of what waits now; None if the study takes no trials any more: ``autopeft stop`` ends that.

        Args:
            promoted: Numbers of trials to go on at their next rung.
            proposals: New trials.

        Raises:
            LeaseLostError: If another driver has the study.
        """
        try:
            numbers = self.store.promote(self.study, self.epoch, promoted, LEASE_SECONDS) if promoted else []
            numbers += self.enqueue(proposals) if proposals else []
        except LeaseLostError:
            self.store.renew_driver(self.study, self.epoch, LEASE_SECONDS)  # raises if another driver has it
            return None
        return numbers

    def forget_checkpoints(self, *, paused: bool) -> Mapping[int, Sequence[str]]:
        """Artifacts to keep, by number of every trial that has ended; with ``paused`` of those too that wait."""
        return self.store.forget_checkpoints(self.study, self.epoch, paused=paused, lease_seconds=LEASE_SECONDS)

    def release(self) -> None:
        """Gives the study free."""
        self.store.release_driver(self.study, self.epoch)


def _is_alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError):
        return True
    return True
