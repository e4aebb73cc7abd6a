"""A worker that takes several orders at once where they can be trained together, and reports each as it ends.

Every member is leased, beaten for and reported by itself, fenced by its own attempt: a worker that is killed loses all
its leases, and each trial is tried again. A trial that was lost or has failed before is trained alone, so that one that
kills what trains it cannot take others along twice. Nothing here loads torch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from autopeft.admission import why_alone, why_plan_alone
from autopeft.errors import EvaluationError, LeaseLostError
from autopeft.store.blame import Failure
from autopeft.study import Order
from search_spaces.configuration import Configuration
from workers.failures import TrialFailure, Unusable, failure_of
from workers.heartbeat import Heartbeat
from workers.loop import Evaluator, Worker, WorkerSettings, WorkerStore
from workers.pack.supervisor import Outcome
from workers.stopping import Preempted, Stop

_log = logging.getLogger("autopeft.worker")


class PackStore(WorkerStore, Protocol):
    """What of the store such a worker needs."""

    def lease_beside(
        self,
        order: Order,
        count: int,
        worker: str,
        fits: Callable[[Configuration], bool],
        lease_seconds: float = ...,
    ) -> list[Order]:
        """At most ``count`` more orders that can be trained beside ``order``."""


class PackEvaluator(Evaluator, Protocol):
    """Trains orders, several at once too."""

    def evaluate_together(
        self, orders: Sequence[Order], check: Callable[[Order], None], tell: Callable[[Order, Outcome], None]
    ) -> None:
        """Tells of each order what came of it; what ``check`` raises of one gives that trial up."""


class PackWorker(Worker):
    """One worker on one connection, whose evaluator is a ``PackEvaluator``. Arguments: ``Worker``."""

    def __init__(
        self, store: WorkerStore, settings: WorkerSettings, evaluator: Evaluator, stop: Stop, heartbeat: Heartbeat
    ) -> None:
        super().__init__(store, settings, evaluator, stop, heartbeat)
        self._explained: set[str] = set()
        self._is_packed = False

    def _take_on(self, order: Order) -> None:
        orders = [order, *self._company(order)]
        if len(orders) == 1:
            super()._take_on(order)
            return
        self._taken += len(orders)
        self._heartbeat.hold(*orders)
        self._is_packed = True
        try:
            self._work_on_all(orders)
        finally:
            self._is_packed = False
            self._heartbeat.release()

    def _company(self, order: Order) -> list[Order]:
        """Orders to train beside ``order``, leased; none where it is trained alone."""
        if (reason := why_alone(order)) is not None:
            self._explain(order, reason)
            return []
        settings, store = self._settings, cast(PackStore, self._store)
        most = settings.pack
        if settings.max_trials is not None:
            most = min(most, settings.max_trials - self._taken)
        if most < 2:
            return []
        self._heartbeat.hold(order)
        try:
            return self._patiently(
                lambda: store.lease_beside(order, most - 1, settings.worker, _fits, settings.lease_seconds),
                while_=self._wanted,
            )
        except LeaseLostError:
            return []  # whoever works on the order finds out

    def _work_on_all(self, orders: Sequence[Order]) -> None:
        """Has a pack evaluated and reports what came of each."""
        fatal: list[Exception] = []

        def tell(order: Order, outcome: Outcome) -> None:
            try:
                self._settle(order, outcome)
            except EvaluationError as error:  # the disk is full: the others are heard first
                fatal.append(error)
            if isinstance(outcome, Unusable):
                fatal.append(outcome.cause)
            self._heartbeat.let_go(order)

        cast(PackEvaluator, self._evaluator).evaluate_together(orders, self._check_one, tell)
        if fatal:
            raise fatal[0]

    def _settle(self, order: Order, outcome: Outcome) -> None:
        """Reports what came of one member."""
        if isinstance(outcome, Preempted):
            kept = outcome.checkpoint
            self._tell(order, lambda: self._store.hand_back(order.trial_id, order.attempt, checkpoint=kept))
        elif isinstance(outcome, LeaseLostError):
            _log.warning("trial %s: the lease was lost; the others of its pack go on", order.number)
        elif isinstance(outcome, Unusable):
            self._hand_back(order, Failure.PREEMPTED, str(outcome))
        elif isinstance(outcome, TrialFailure):
            self._tell_failure(order, outcome)
        elif isinstance(outcome, Exception):
            self._tell_failure(order, failure_of(outcome))
        else:
            measurement, environment = outcome
            self._tell(
                order, lambda: self._store.report(order.trial_id, order.attempt, measurement, environment or None)
            )

    def _explain(self, order: Order, reason: str) -> None:
        """Says in the log why a trial runs alone, once for each reason."""
        if reason not in self._explained:
            self._explained.add(reason)
            _log.warning("trial %s runs alone, and others like it: %s", order.number, reason)

    def _check_one(self, order: Order) -> None:
        self._stop.check()
        self._heartbeat.check(order)

    def _keeps(self, order: Order) -> bool:
        return self._heartbeat.keeps(order) if self._is_packed else super()._keeps(order)


def _fits(plan: Configuration) -> bool:
    return why_plan_alone(plan) is None
