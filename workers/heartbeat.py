"""Keeps the lease of the trial at hand alive from a thread with its own connection, and tells when it is lost.

The thread reports nothing and ends no trial: the training loop asks ``check`` between its steps.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
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


class Heartbeat:
    """Renews the lease of the order it holds every quarter of the lease.

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
        self._order: Order | None = None
        self._last_beat = 0.0
        self._lost = False
        self._cancelled = False
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

    def hold(self, order: Order) -> None:
        """Starts to keep the lease of ``order``, which was leased this moment."""
        with self._lock:
            self._order, self._lost, self._cancelled = order, False, False
            self._last_beat = time.monotonic()

    def release(self) -> None:
        """Leaves the lease alone again."""
        with self._lock:
            self._order = None

    @property
    def alive(self) -> bool:
        """Whether the lease may still be this worker's, by what the last beat said and the time since."""
        with self._lock:
            return not self._lost and time.monotonic() - self._last_beat < self._lease_seconds

    def check(self) -> None:
        """Nothing, while the trial may go on.

        Raises:
            LeaseLostError: If the lease is lost, or could not be renewed for as long as it lasts.
            Preempted: If the trial was cancelled.
        """
        if not self.alive:
            raise LeaseLostError("the lease was lost")
        if self._cancelled:
            raise Preempted("the trial was cancelled")

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
            order = None if self._lost else self._order
        if order is None:
            store.worker_seen(self._worker)
            return
        lost = cancelled = False
        try:
            cancelled = store.beat(order.trial_id, order.attempt, self._lease_seconds)
        except LeaseLostError:
            lost = True
        with self._lock:
            if self._order is order:
                self._lost, self._cancelled = lost, cancelled
                self._last_beat = self._last_beat if lost else time.monotonic()
