"""The search loop: keeps the queue filled, the front recorded and the workers alive, until the target is reached.

The driver and the workers meet only in the record: either can die at any point and be started again.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from autopeft.errors import (
    AutopeftError,
    EvaluationError,
    LeaseLostError,
    NotFoundError,
    SchemaError,
    StoreError,
    StudyDrivenError,
)
from autopeft.launch import Engine
from autopeft.optimizer import Proposer, make_proposer
from autopeft.standing import Standing, scale, standing
from autopeft.store import Store, systematic_failure
from autopeft.study import FrontRecord, Observation, Origin, Proposal, Study, Trial, TrialState
from search_spaces.configuration import Configuration, LayerPlan, Training
from search_spaces.presets import control

POLL_SECONDS = 0.3
LEASE_SECONDS = 15.0
RENEW_SECONDS = 4.0
PATIENCE_SECONDS = 300.0
"""How long the record may be away before the search gives up; the workers wait likewise."""


class Ending(StrEnum):
    """Why a search ended."""

    TARGET = "target reached"
    HOURS = "time limit reached"
    EXHAUSTED = "space exhausted"
    INTERRUPTED = "interrupted"
    STOPPED = "stopped by autopeft stop"


@dataclass(frozen=True, slots=True)
class Progress:
    """What a progress display is shown.

    Attributes:
        study: The study.
        trials: All its trials, now.
        standing: Fronts and hypervolumes, now.
        target: Trials there will be, control and reference included.
        elapsed_seconds: Since this driver started.
        eta_seconds: Expected until the end, or None before the first trial is done.
    """

    study: Study
    trials: Sequence[Trial]
    standing: Standing
    target: int
    elapsed_seconds: float
    eta_seconds: float | None


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
    """

    store: Store
    study: Study
    engine: Engine
    show: Callable[[Progress], None]
    interrupt: Interrupt = field(default_factory=Interrupt)
    _epoch: int = 0
    _started: float = 0.0
    _seen: int = -1

    def run(self) -> Ending:
        """Runs to the target and returns why it ended.

        Raises:
            StoreError: If another live driver holds the study, or the record is lost.
            EvaluationError: If workers cannot be kept alive, or the first trials all fail alike.
        """
        self._started = time.monotonic()
        self._epoch = self._acquire()
        try:
            self._enqueue_fixed()
            self.engine.start()
            return self._loop()
        finally:
            self.engine.stop()
            self.store.release_driver(self.study.name, self._epoch)

    def _acquire(self) -> int:
        """The new epoch; a driver of this host that is dead is waited out, which its lease bounds.

        Raises:
            StudyDrivenError: If the study's driver lives, or sits on another host.
        """
        host = socket.gethostname()
        deadline = time.monotonic() + LEASE_SECONDS + 2
        while True:
            try:
                return self.store.acquire_driver(self.study.name, f"{host}:{os.getpid()}", LEASE_SECONDS)
            except StudyDrivenError as error:
                owner_host, _, process = error.owner.rpartition(":")
                if owner_host != host or _is_alive(process) or time.monotonic() > deadline:
                    raise
            time.sleep(POLL_SECONDS)

    def _loop(self) -> Ending:
        proposer = make_proposer(self.study.proposer, self.study.initial_count, self.study.seed)
        clock = _Clock({"record": time.monotonic()})
        ending: Ending | None = None
        while True:
            try:
                ending = ending or self._look(proposer, clock)
                if ending is not None and self._is_over(ending, clock):
                    return ending
                clock.last["record"] = time.monotonic()
            except (LeaseLostError, NotFoundError, SchemaError):
                raise
            except StoreError:
                if time.monotonic() - clock.last["record"] > PATIENCE_SECONDS:
                    raise
            time.sleep(POLL_SECONDS)

    def _look(self, proposer: Proposer, clock: _Clock) -> Ending | None:
        """One look at the record, and what follows from it; an ending is begun, and comes back."""
        self._keep_house(clock)
        self.engine.ensure_alive()
        trials = self._show_news(clock)
        ending = None if trials is None else self._ending(trials) or self._fill_queue(proposer, trials)
        if ending not in (None, Ending.TARGET, Ending.EXHAUSTED):
            self.engine.drain()  # what runs may finish, what waits stays for ``resume``
        return ending

    def _is_over(self, ending: Ending, clock: _Clock) -> bool:
        """Whether nothing runs any more that is waited for."""
        if ending in (Ending.TARGET, Ending.EXHAUSTED):
            return True
        self._keep_house(clock)
        self._show_news(clock)
        impatient = self.interrupt.count > (1 if ending is Ending.INTERRUPTED else 0)
        return impatient or self.engine.alive_count == 0

    def _show_news(self, clock: _Clock) -> Sequence[Trial] | None:
        """The trials, shown and their front recorded; None if nothing changed in the last second."""
        revision = self.store.revision(self.study.name)
        if revision == self._seen and not clock.due("show", 1.0):
            return None
        trials = self.store.trials(self.study.name)
        progress = self._progress(trials)
        if revision != self._seen:
            self._record_front(progress)
        self._seen = revision
        self.show(progress)
        return trials

    def _keep_house(self, clock: _Clock) -> None:
        if clock.due("renew", RENEW_SECONDS):
            self.store.renew_driver(self.study.name, self._epoch, LEASE_SECONDS)
            self.store.reap(self.study.name)

    def _ending(self, trials: Sequence[Trial]) -> Ending | None:
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
        proposed = sum(trial.origin in (Origin.INITIAL, Origin.MODEL) for trial in trials)
        if proposed >= self.study.trials and all(trial.state.is_final for trial in trials):
            return Ending.TARGET
        return None

    def _enqueue_fixed(self) -> None:
        """The head-only reference and the control: the same for every search, and already there on resume."""
        study = self.study
        head_only = Configuration((LayerPlan(),) * study.backbone.layer_count, Training(study.control_learning_rate))
        proposals = [Proposal(head_only, Origin.REFERENCE, "head only", priority=1)]
        sweep = control(study.backbone, study.budget.parameters, study.control_learning_rate)
        proposals += [Proposal(plan, Origin.CONTROL, label, priority=1) for label, plan in sweep.items()]
        self.store.enqueue(study.name, self._epoch, proposals, LEASE_SECONDS)

    def _fill_queue(self, proposer: Proposer, trials: Sequence[Trial]) -> Ending | None:
        """Proposes as many configurations as workers may soon ask for."""
        queued = sum(trial.state is TrialState.QUEUED for trial in trials)
        proposed = [trial for trial in trials if trial.origin in (Origin.INITIAL, Origin.MODEL)]
        wanted = min(self.study.trials - len(proposed), len(self.engine.plans) - queued)
        if wanted <= 0:
            return None
        observations = [seen for trial in trials if (seen := self._observation(trial)) is not None]
        told = (TrialState.COMPLETE, TrialState.DIVERGED)
        known = [trial.configuration for trial in trials if trial.state not in told]
        # the generator depends on how many stand in the record, so that a resumed search does not repeat itself
        generator = np.random.default_rng([self.study.seed, len(trials)])
        configurations = proposer.propose(
            self.study.search_space,
            scale(self.study),
            self.study.objectives,
            observations,
            known,
            wanted,
            generator,
        )
        fresh = len(proposed) < self.study.initial_count
        origin = Origin.INITIAL if fresh else Origin.MODEL
        if not self._enqueue([Proposal(plan, origin) for plan in configurations]):
            return Ending.STOPPED
        if not configurations and all(trial.state.is_final for trial in trials):
            return Ending.EXHAUSTED
        return None

    def _enqueue(self, proposals: Sequence[Proposal]) -> bool:
        """Whether the study still takes trials; ``autopeft stop`` ends that."""
        try:
            self.store.enqueue(self.study.name, self._epoch, proposals, LEASE_SECONDS)
        except LeaseLostError:
            self.store.renew_driver(
                self.study.name, self._epoch, LEASE_SECONDS
            )  # raises if another driver holds the study
            return False
        return True

    def _observation(self, trial: Trial) -> Observation | None:
        """What the proposer may learn from ``trial``: a run that diverged scores like guessing, and is on no front."""
        if trial.state is TrialState.DIVERGED:
            return Observation(trial.configuration, {self.study.metric: self.study.quality_floor}, counts=False)
        if trial.state is not TrialState.COMPLETE or trial.origin is Origin.REFERENCE:
            return None
        return Observation(trial.configuration, trial.values, counts=trial.origin is not Origin.CONTROL)

    def _record_front(self, progress: Progress) -> None:
        members = [trial.number for trial in progress.standing.front]
        history = self.store.fronts(self.study.name)
        if members and (not history or list(history[-1].trials) != members):
            completed = sum(trial.state is TrialState.COMPLETE for trial in progress.trials)
            seconds = self.store.seconds_since_start(self.study.name)
            record = FrontRecord(members, progress.standing.hypervolume, completed, seconds)
            self.store.record_front(self.study.name, record)

    def _progress(self, trials: Sequence[Trial]) -> Progress:
        fixed = sum(trial.origin in (Origin.CONTROL, Origin.REFERENCE) for trial in trials)
        target = self.study.trials + fixed
        elapsed = time.monotonic() - self._started
        eta = _eta_seconds(trials, target, len(self.engine.plans))
        if eta is not None and self.study.hours is not None:
            eta = min(eta, max(0.0, self.study.hours * 3600 - elapsed))
        return Progress(self.study, trials, standing(self.study, trials), target, elapsed, eta)


def _is_alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError):
        return True
    return True


@dataclass(slots=True)
class _Clock:
    """When each recurring duty was last done."""

    last: dict[str, float] = field(default_factory=dict)

    def due(self, duty: str, interval_seconds: float) -> bool:
        now = time.monotonic()
        if now - self.last.get(duty, -1e9) < interval_seconds:
            return False
        self.last[duty] = now
        return True


def _eta_seconds(trials: Sequence[Trial], target: int, workers: int) -> float | None:
    """Mean duration of the adapted trials done × those to come ÷ workers; None before the first is done."""
    durations = [
        trial.values["train_seconds"] + trial.values["evaluate_seconds"]
        for trial in trials
        if trial.state is TrialState.COMPLETE and trial.origin is not Origin.REFERENCE
    ]
    if not durations:
        return None
    left = target - sum(trial.state.is_final for trial in trials)
    return sum(durations) / len(durations) * left / workers


def require_unfinished(study: Study, trials: Sequence[Trial]) -> None:
    """Nothing, if ``study`` has something left to do.

    Raises:
        AutopeftError: If its target is reached; the message says how to raise it.
    """
    proposed = sum(trial.origin in (Origin.INITIAL, Origin.MODEL) for trial in trials)
    if proposed >= study.trials and all(trial.state.is_final for trial in trials):
        raise AutopeftError(
            f"study {study.name} has reached its target of {study.trials} trials; "
            f"autopeft resume {study.name} --trials {study.trials * 2} goes on"
        )
