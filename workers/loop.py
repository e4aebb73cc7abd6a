"""A worker's life: lease an order, have it evaluated, report what came of it, until it is asked to end.

A failed trial is data: the worker goes on with the next, and the store says what becomes of the trial. What stands in
the way of every trial (no model, no data, no database, no room on the disk) ends the worker. Nothing here loads torch:
an evaluator does, in a child (``workers.supervisor``) or in this process (``workers.inside``).
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from autopeft.errors import EvaluationError, LeaseLostError, NotFoundError, SchemaError, StoreError
from autopeft.store.blame import Failure
from autopeft.study import Checkpoint, Measurement, Order, TrialState
from workers.failures import TrialFailure, Unusable, failure_of
from workers.heartbeat import BeatStore, Heartbeat
from workers.stopping import Preempted, Stop

LEASE_SECONDS = 60.0
REAP_SECONDS = 5.0
IDLE_POLL_SECONDS = (0.2, 2.0)
"""First and longest wait between two looks at an empty queue."""

RETRY_SECONDS = (0.2, 5.0)
"""First and longest wait before a call to a database that is locked or away is made again."""

T = TypeVar("T")

_log = logging.getLogger("autopeft.worker")


class WorkerStore(BeatStore, Protocol):
    """What of the store a worker needs."""

    def register_worker(self, worker: str, host: str, device: str, pid: int, environment: Mapping[str, str]) -> None:
        """Enters the worker."""

    def lease(self, worker: str, study: str | None, lease_seconds: float = ...) -> Order | None:
        """The next order, or None."""

    def report(
        self, trial_id: int, attempt: int, measurement: Measurement, environment: Mapping[str, str] | None = ...
    ) -> None:
        """Records the measurement; ``LeaseLostError`` if the attempt no longer holds the trial."""

    def report_and_lease(
        self,
        trial_id: int,
        attempt: int,
        measurement: Measurement,
        environment: Mapping[str, str] | None,
        worker: str,
        study: str | None,
        lease_seconds: float = ...,
    ) -> Order | None:
        """Records the measurement and gives the next order; ``LeaseLostError`` as for ``report``."""

    def report_diverged(self, trial_id: int, attempt: int, reason: str) -> None:
        """Records that the trial diverged."""

    def report_failure(
        self, trial_id: int, attempt: int, reason: str, traceback: str, failure: str = ...
    ) -> TrialState:
        """Records that the attempt failed."""

    def report_lost(self, trial_id: int, attempt: int, reason: str, last_words: str = ...) -> TrialState:
        """Records that what trained the trial died."""

    def hand_back(
        self,
        trial_id: int,
        attempt: int,
        reason: str | None = ...,
        failure: str = ...,
        checkpoint: Checkpoint | None = ...,
    ) -> None:
        """Gives the trial back unblamed, to be gone on with from ``checkpoint``."""

    def reap(self, study: str | None = ...) -> int:
        """Frees trials whose lease ran out."""


class Evaluator(Protocol):
    """Trains orders, one after the other."""

    def start(self) -> Mapping[str, str]:
        """What its measurements rest on; called before the first order."""

    def evaluate(self, order: Order, check: Callable[[], None]) -> tuple[Measurement, Mapping[str, str]]:
        """The measurement, and what else it rests on.

        ``check`` is called again and again, and what it raises ends the trial. Raises ``TrialFailure`` (or any other
        exception) if the trial failed, ``Unusable`` if every trial would.
        """

    def close(self) -> None:
        """Frees what it holds."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How one worker works.

    Attributes:
        worker: Its name, unique in the database.
        study: Study whose trials it takes; None for any.
        device: ``cpu`` or ``cuda:N``.
        idle_seconds: Ends after so long without a trial; 0 waits for ever.
        lease_seconds: How long a lease lasts without a beat.
        max_trials: Ends after so many trials; None for no limit.
        environment: Versions that its measurements rest on.
        pack: Most trials that are trained together, by a worker that can.
    """

    worker: str
    study: str | None
    device: str = "cpu"
    idle_seconds: float = 0.0
    lease_seconds: float = LEASE_SECONDS
    max_trials: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    pack: int = 1


def run_worker(
    open_store: Callable[[], WorkerStore],
    settings: WorkerSettings,
    evaluator: Evaluator,
    stop: Stop | None = None,
    kind: type[Worker] | None = None,
) -> int:
    """Works until asked to end; the number of orders taken comes back.

    Args:
        open_store: Opens a connection to the record; called once here and once by the heartbeat.
        settings: How to work.
        evaluator: What trains the orders; closed at the end.
        stop: What ends the worker; None: only ``idle_seconds`` and ``max_trials`` do.
        kind: Of worker; None: one that takes an order at a time.

    Raises:
        AutopeftError: If the database, the device, the model or the task cannot be used at all.
    """
    stop = stop or Stop()
    store = open_store()
    try:
        with Heartbeat(open_store, settings.worker, settings.lease_seconds) as heartbeat:
            return (kind or Worker)(store, settings, evaluator, stop, heartbeat).run()
    finally:
        evaluator.close()
        store.close()


class Worker:
    """One worker on one connection.

    Args:
        store: The record.
        settings: How to work.
        evaluator: What trains the orders.
        stop: What ends the worker.
        heartbeat: Keeps the lease of the trial at hand.
    """

    def __init__(
        self, store: WorkerStore, settings: WorkerSettings, evaluator: Evaluator, stop: Stop, heartbeat: Heartbeat
    ) -> None:
        self._store = store
        self._settings = settings
        self._evaluator = evaluator
        self._stop = stop
        self._heartbeat = heartbeat
        self._last_reap = 0.0
        self._taken = 0
        self._next: Order | None = None

    def run(self) -> int:
        """Works until asked to end; the number of orders taken comes back."""
        settings = self._settings
        environment = {**settings.environment, **self._evaluator.start()}
        host, pid = socket.gethostname(), os.getpid()
        self._patiently(
            lambda: self._store.register_worker(settings.worker, host, settings.device, pid, environment),
            while_=self._wanted,
        )
        while self._may_take_more and (order := self._next_order()) is not None:
            self._take_on(order)
        return self._taken

    def _take_on(self, order: Order) -> None:
        """Works on an order, its lease kept meanwhile."""
        self._taken += 1
        self._heartbeat.hold(order)
        try:
            self._work(order)
        finally:
            self._heartbeat.release()

    @property
    def _may_take_more(self) -> bool:
        return self._taken != self._settings.max_trials

    def _next_order(self) -> Order | None:
        """The next order as soon as there is one; None if the worker is to end."""
        settings = self._settings
        if (ahead := self._next) is not None:
            self._next = None
            if not self._stop.requested:
                return ahead
            self._hand_back(ahead, Failure.PREEMPTED, "the worker was asked to leave")
        idle_since, (wait, longest_wait) = time.monotonic(), IDLE_POLL_SECONDS
        while not self._stop.requested:
            order = self._patiently(
                lambda: self._store.lease(settings.worker, settings.study, settings.lease_seconds), while_=self._wanted
            )
            if order is not None:
                return order
            if settings.idle_seconds and time.monotonic() - idle_since >= settings.idle_seconds:
                return None
            self._reap_now_and_then()
            self._stop.wait(wait)
            wait = min(wait * 1.5, longest_wait)
        return None

    def _work(self, order: Order) -> None:
        """Has one order evaluated and reports what came of it."""
        try:
            measurement, environment = self._evaluator.evaluate(order, self._check)
        except Preempted as stopped:
            kept = stopped.checkpoint
            self._tell(order, lambda: self._store.hand_back(order.trial_id, order.attempt, checkpoint=kept))
        except LeaseLostError:
            _log.warning("trial %s: the lease was lost; going on with the next", order.number)
        except Unusable as error:
            self._hand_back(order, Failure.PREEMPTED, str(error))
            raise error.cause from None
        except TrialFailure as failure:
            self._tell_failure(order, failure)
        except Exception as error:
            self._tell_failure(order, failure_of(error))
        else:
            self._tell(order, lambda: self._report(order, measurement, environment or None))

    def _report(self, order: Order, measurement: Measurement, environment: Mapping[str, str] | None) -> None:
        """Reports, and takes the next order with it unless the worker is about to end."""
        told = order.trial_id, order.attempt, measurement, environment
        if self._may_take_more and not self._stop.requested:
            settings = self._settings
            self._next = self._store.report_and_lease(*told, settings.worker, settings.study, settings.lease_seconds)
        else:
            self._store.report(*told)

    def _check(self) -> None:
        self._stop.check()
        self._heartbeat.check()

    def _tell_failure(self, order: Order, failure: TrialFailure) -> None:
        """Reports a failure as what it is: a result, a loss, the worker's own fault, or the trial's."""
        _log.warning("trial %s failed: %s", order.number, failure.reason)
        key, reason, trace = (order.trial_id, order.attempt), failure.reason, failure.trace
        if failure.kind is Failure.DIVERGED:
            self._tell(order, lambda: self._store.report_diverged(*key, reason))
        elif failure.kind is Failure.LOST:
            self._tell(order, lambda: self._store.report_lost(*key, reason, trace))
        elif failure.kind is Failure.DISK:
            self._hand_back(order, failure.kind, reason)
            raise EvaluationError(f"{reason} (worker {self._settings.worker} ends: free some space)")
        else:
            self._tell(order, lambda: self._store.report_failure(*key, reason, trace, failure.kind))

    def _hand_back(self, order: Order, kind: Failure, reason: str) -> None:
        self._tell(order, lambda: self._store.hand_back(order.trial_id, order.attempt, reason, kind))

    def _tell(self, order: Order, call: Callable[[], object]) -> None:
        """Makes a report, again and again while the lease lives and the database is away."""
        try:
            self._patiently(call, while_=lambda: self._keeps(order))
        except LeaseLostError:
            _log.warning("trial %s: the lease was lost before its report", order.number)
        except StoreError as error:
            _log.warning("trial %s: its report could not be recorded: %s", order.number, error)

    def _keeps(self, _order: Order) -> bool:
        """Whether a report of the order may still count."""
        return self._heartbeat.alive

    def _wanted(self) -> bool:
        return not self._stop.requested

    def _patiently(self, call: Callable[[], T], while_: Callable[[], bool]) -> T:
        """What ``call`` returns, tried again with a growing wait while the database fails and ``while_`` holds."""
        wait, longest_wait = RETRY_SECONDS
        while True:
            try:
                return call()
            except (LeaseLostError, NotFoundError, SchemaError):
                raise
            except StoreError as error:
                if not while_():
                    raise
                _log.warning("%s; trying again in %.1f s", error, wait)
                time.sleep(wait)
                wait = min(wait * 2, longest_wait)

    def _reap_now_and_then(self) -> None:
        now = time.monotonic()
        if now - self._last_reap >= REAP_SECONDS:
            self._last_reap = now
            try:
                self._store.reap(self._settings.study)
            except StoreError as error:
                _log.warning("%s", error)
