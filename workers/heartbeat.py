"""Keeps the leases of the trials at hand alive from a thread with its own connection, and tells when one is lost.

The thread reports nothing and ends no trial: the training loop asks ``check`` between its steps.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from autopeft.errors import LeaseLostError, StoreError
from autopeft.study import Order
from workers.stopping import Preempted

_RETRY_SECONDS = 1.0


class BeatStore(Protocol):
    """What of the store a heartbeat needs."""

    def beat(self, trial_id: int, attempt: int, lease_seconds: float = ...) -> bool:
        """Renews the lease; whether a cancel was asked for. ``LeaseLostError`` if the attempt no longer holds it."""

    def worker_seen(self, worker: str) -> None:
        """Notes that the worker is alive."""

    def close(self) -> None:
        """Closes the connection."""


@dataclass(slots=True)
class _Held:
    """One lease, and what the beats said of it."""

    order: Order
    last_beat: float
    lost: bool = False
    cancelled: bool = False


class Heartbeat:
    """Renews the leases of the orders it holds every quarter of the lease.

    Args:
        open_store: Opens a connection; called in the thread.
        worker: Name of the worker.
        lease_seconds: How long a lease lasts without a beat.
    """

    def __init__(self, open_store: Callable[[], BeatStore], worker: str, lease_seconds: float) -> None:
        self._open_store = open_store
        self._worker = worker
        self._lease_seconds = lease_seconds
        self._lock = threading.Lock()
        self._held: list[_Held] = []
        self._beats = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.set()
        self._thread.join(timeout=5.0)

    def hold(self, *orders: Order) -> None:
        """Starts to keep the leases of ``orders`` and of no others; they were leased this moment."""
        with self._lock:
            self._held, self._beats = [_Held(order, time.monotonic()) for order in orders], True

    def let_go(self, order: Order) -> None:
        """Leaves the lease of ``order`` alone, and keeps the others."""
        with self._lock:
            self._held = [held for held in self._held if held.order is not order]

    def release(self) -> None:
        """Leaves all leases alone again."""
        with self._lock:
            self._beats = False

    @property
    def alive(self) -> bool:
        """Whether the leases may still be this worker's, by what the last beats said and the time since."""
        with self._lock:
            return bool(self._held) and all(self._is_alive(held) for held in self._held)

    def keeps(self, order: Order) -> bool:
        """Whether the lease of ``order`` may still be this worker's."""
        with self._lock:
            return any(self._is_alive(held) for held in self._held if held.order is order)

    def check(self, order: Order | None = None) -> None:
        """Nothing, while the trial may go on: that of ``order``, or whatever is held.

        Raises:
            LeaseLostError: If the lease is lost, or could not be renewed for as long as it lasts.
            Preempted: If the trial was cancelled.
        """
        with self._lock:
            held = [one for one in self._held if order is None or one.order is order]
            alive = bool(held) and all(self._is_alive(one) for one in held)
        if not alive:
            raise LeaseLostError("the lease was lost")
        if any(one.cancelled for one in held):
            raise Preempted("the trial was cancelled")

    def _is_alive(self, held: _Held) -> bool:
        return not held.lost and time.monotonic() - held.last_beat < self._lease_seconds

    def _run(self) -> None:
        store: BeatStore | None = None
        wait = self._lease_seconds / 4
        while not self._closing.wait(wait):
            wait = self._lease_seconds / 4
            try:
                store = store or self._open_store()
                self._beat_once(store)
            except StoreError:
                wait = min(wait, _RETRY_SECONDS)
        if store is not None:
            with suppress(StoreError):
                store.close()

    def _beat_once(self, store: BeatStore) -> None:
        with self._lock:
            due = [held for held in self._held if not held.lost] if self._beats else []
        if not due:
            store.worker_seen(self._worker)
        for held in due:
            lost = cancelled = False
            try:
                cancelled = store.beat(held.order.trial_id, held.order.attempt, self._lease_seconds)
            except LeaseLostError:
                lost = True
            with self._lock:
                held.lost, held.cancelled = lost, cancelled
                held.last_beat = held.last_beat if lost else time.monotonic()
