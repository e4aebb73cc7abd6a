"""The search loop: keeps the queue filled, the front recorded and the workers alive, until the target is reached.

The driver and the workers meet only in the record: either can die at any point and be started again. What waits for
the workers is ``queueing``'s to say.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autopeft import rungs
from autopeft.driver_lease import DriverLease
from autopeft.duties import POLL_SECONDS, Duties
from autopeft.errors import EvaluationError, LeaseLostError, NotFoundError, SchemaError, StoreError
from autopeft.launch import Engine
from autopeft.optimizer import make_proposer
from autopeft.progress import Ending, Progress, progress
from autopeft.queueing import Queue
from autopeft.spending import Spending, WorkerTime, spending
from autopeft.standing import standing
from autopeft.store import Store, systematic_failure
from autopeft.study import FrontRecord, Study, Trial, TrialState
from autopeft.sweeping import sweep

SHORTEST_POLL_SECONDS = 0.05
RENEW_SECONDS = 4.0
SWEEP_SECONDS = 20.0

PATIENCE_SECONDS = 300.0
"""How long the record may be away before the search gives up; the workers wait likewise."""

_CONFIRMED = (Ending.TARGET, Ending.EXHAUSTED, Ending.DEVICE_HOURS)
"""Endings after which front and control are trained again, if that is asked for and can be paid."""


@dataclass(slots=True)
class Interrupt:
    """How often the user asked to stop: once drains, twice stops."""

    count: int = 0

    def request(self) -> None:
        """Counts one more request."""
        self.count += 1


@dataclass(slots=True)
class Driver:
    """One search of one study.

    Attributes:
        store: The record.
        study: What is asked, with the targets that hold now.
        engine: Starts and stops the workers.
        show: Called with the progress whenever the record changed, and every second.
        interrupt: The user's wish to stop.
        artifacts: Root folder of artifacts, where checkpoints that nobody needs are swept; None: nothing is.
    """

    store: Store
    study: Study
    engine: Engine
    show: Callable[[Progress], None]
    interrupt: Interrupt = field(default_factory=Interrupt)
    artifacts: Path | None = None
    _started: float = 0.0
    _seen: int = -1
    _swept: set[int] = field(default_factory=set)

    def run(self) -> Ending:
        """Runs to the target and returns why it ended.

        Raises:
            StoreError: If another live driver holds the study, or the record is lost.
            EvaluationError: If workers cannot be kept alive, or the first trials all fail alike.
        """
        self._started = time.monotonic()
        lease = DriverLease.acquire(self.store, self.study.name)
        try:
            proposer = make_proposer(self.study.proposer, self.study.initial_count, self.study.seed)
            queue = Queue(self.study, lease, self.engine, proposer)
            queue.begin()
            self.engine.start()
            return self._loop(queue)
        finally:
            self.engine.stop()
            lease.release()

    def _loop(self, queue: Queue) -> Ending:
        clock = Duties({"record": time.monotonic()})
        ending: Ending | None = None
        while True:
            began = time.monotonic()
            try:
                ending = ending or self._look(queue, clock)
                if ending is not None and self._is_over(ending, queue.lease, clock):
                    return ending
                clock.last["record"] = time.monotonic()
            except (LeaseLostError, NotFoundError, SchemaError):
                raise
            except StoreError:
                if time.monotonic() - clock.last["record"] > PATIENCE_SECONDS:
                    raise
            time.sleep(max(SHORTEST_POLL_SECONDS, POLL_SECONDS - (time.monotonic() - began)))

    def _look(self, queue: Queue, clock: Duties) -> Ending | None:
        """One look at the record, and what follows from it; an ending is begun, and comes back."""
        self._keep_house(queue.lease, clock)
        self.engine.ensure_alive()
        ending = None
        if (trials := self._show_news(clock)) is not None:
            spent = self._spending(trials)
            ending = self._ending(trials, spent) or queue.fill(trials, spent)
            if ending in _CONFIRMED and queue.confirm(trials, spent):
                ending = None
        if ending not in (None, Ending.TARGET, Ending.EXHAUSTED):
            self.engine.drain()  # what runs may finish, what waits stays for ``resume``
        return ending

    def _is_over(self, ending: Ending, lease: DriverLease, clock: Duties) -> bool:
        """Whether nothing runs any more that is waited for."""
        if ending in (Ending.TARGET, Ending.EXHAUSTED):
            self._sweep(lease, paused=True)
            return True
        self._keep_house(lease, clock)
        self._show_news(clock)
        impatient = self.interrupt.count > (1 if ending is Ending.INTERRUPTED else 0)
        return impatient or self.engine.alive_count == 0

    def _show_news(self, clock: Duties) -> Sequence[Trial] | None:
        """The trials, shown and their front recorded; None if nothing changed in the last second."""
        revision = self.store.revision(self.study.name)
        if revision == self._seen and not clock.due("show", 1.0):
            return None
        trials = self.store.trials(self.study.name)
        elapsed = time.monotonic() - self._started
        now = progress(self.study, trials, len(self.engine.plans), elapsed, self._spending(trials))
        if revision != self._seen:
            self._record_front(now)
        self._seen = revision
        self.show(now)
        return trials

    def _keep_house(self, lease: DriverLease, clock: Duties) -> None:
        if clock.due("renew", RENEW_SECONDS):
            lease.renew()
        if clock.due("sweep", SWEEP_SECONDS):
            self._sweep(lease, paused=False)

    def _sweep(self, lease: DriverLease, *, paused: bool) -> None:
        """Takes away checkpoints of trials that have ended; with ``paused`` of those too that were not promoted."""
        if self.artifacts is None:
            return
        remaining = lease.forget_checkpoints(paused=paused)
        sweep(self.artifacts, self.study.name, {n: kept for n, kept in remaining.items() if n not in self._swept})
        self._swept |= set(remaining)

    def _ending(self, trials: Sequence[Trial], spent: Spending | None) -> Ending | None:
        """Why the search is to end now, or None.

        Raises:
            EvaluationError: If the first trials all failed alike.
        """
        if (message := systematic_failure(trials)) is not None:
            raise EvaluationError(message)
        if self.interrupt.count:
            return Ending.INTERRUPTED
        hours = self.study.hours
        if hours is not None and time.monotonic() - self._started >= hours * 3600:
            return Ending.HOURS
        more_to_come = rungs.proposed_count(trials) < self.study.trials
        if rungs.is_over(self.study, trials, more_to_come=more_to_come):
            return Ending.TARGET
        at_rest = all(trial.state.rests for trial in trials)
        return Ending.DEVICE_HOURS if spent and (spent.is_over or (at_rest and not spent.affordable)) else None

    def _spending(self, trials: Sequence[Trial]) -> Spending | None:
        """Device time, as it stands now; None if it has no limit."""
        if self.study.device_hours is None:
            return None
        used = WorkerTime(*self.store.worker_seconds(self.study.name))
        return spending(self.study, trials, used, standing(self.study, trials))

    def _record_front(self, progress: Progress) -> None:
        members = [trial.number for trial in progress.standing.front]
        history = self.store.fronts(self.study.name)
        if members and (not history or list(history[-1].trials) != members):
            completed = sum(trial.state is TrialState.COMPLETE for trial in progress.trials)
            seconds = self.store.seconds_since_start(self.study.name)
            record = FrontRecord(members, progress.standing.hypervolume, completed, seconds)
            self.store.record_front(self.study.name, record)
