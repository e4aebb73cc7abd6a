"""What waits for the workers: promotions, the control's sweep, proposals, and what is trained again at the end.

Asks ``asking`` and ``rungs`` what is due and the proposer for the rest; reads neither record nor engine but for the
number of workers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autopeft import asking, pace, rungs
from autopeft.confirming import missing
from autopeft.driver_lease import DriverLease
from autopeft.duties import POLL_SECONDS
from autopeft.launch import Engine
from autopeft.optimizer import Proposer
from autopeft.progress import Ending
from autopeft.scales import scale
from autopeft.spending import Spending
from autopeft.standing import standing
from autopeft.study import Origin, Proposal, Study, Trial, TrialState

DEEPEST_QUEUE = 4
"""Trials queued ahead for each worker, at most: the deeper the queue, the less each proposal knows."""

REST = 3.0
"""How long nothing is proposed after a proposal, in times of what it took, while half the queue is full.

The model is fitted anew for every batch, which costs as much as thirty proposals: few at a time would cost a core.
"""


@dataclass(slots=True)
class Queue:
    """The waiting trials of one search.

    Attributes:
        study: What is asked.
        lease: The right to add to the record.
        engine: Whose workers take the trials.
        proposer: Suggests configurations.
        proposing_seconds: What the last proposal took.
    """

    study: Study
    lease: DriverLease
    engine: Engine
    proposer: Proposer
    proposing_seconds: float = 0.0
    _rests_until: float = 0.0
    _latest: int | None = None

    def begin(self) -> None:
        """Enqueues the head-only reference and what the control begins with: the same for every search."""
        self.lease.enqueue(asking.fixed(self.study))

    def fill(self, trials: Sequence[Trial], spent: Spending | None) -> Ending | None:
        """Promotes what is to go on, and proposes as many configurations as workers may soon ask for.

        Args:
            trials: All of the study.
            spent: Device time, if it has a limit.
        """
        queued = sum(trial.state is TrialState.QUEUED for trial in trials)
        depth = self.depth(trials)
        room = depth - queued
        if room <= 0:
            return None
        told = self._told(trials)
        if swept := asking.missing_control(self.study, told):
            return self._add((), swept)
        room = room if spent is None else min(room, spent.affordable)
        if room <= 0:
            return self._add_late(trials, room)
        wanted = self.study.trials - rungs.proposed_count(trials)
        promoted = rungs.promotions(self.study, told, more_to_come=wanted > 0)[:room]
        if promoted:
            return self._add(promoted, ())
        if wanted > 0 and room < depth / 2 and time.monotonic() < self._rests_until:
            return None
        if wanted > 0:
            return self._propose(trials, told, min(wanted, room))
        return self._add_late(trials, room) if told is not trials else None

    def confirm(self, trials: Sequence[Trial], spent: Spending | None) -> bool:
        """Whether fresh seeds of front and control, or references, were enqueued, so that the search goes on."""
        again = missing(self.study, trials, standing(self.study, trials))
        again += asking.missing_references(self.study, trials)
        if spent is not None and spent.left < 0:
            return False
        return bool(again) and self._add((), again) is None

    def depth(self, trials: Sequence[Trial]) -> int:
        """How many trials are to wait: one a place, or twice what may be taken while there is one proposal."""
        places, seconds = self._places, pace.attempt_seconds(self.study, trials)
        if places == 1 or seconds is None:
            return places
        workers = len(self.engine.plans)
        taken = 1.5 * workers * (POLL_SECONDS + self.proposing_seconds) / max(seconds, 1e-3)
        return max(places, min(math.ceil(2 * taken), DEEPEST_QUEUE * workers))

    @property
    def _places(self) -> int:
        """How many trials the workers can train at once."""
        return sum(plan.pack for plan in self.engine.plans)

    def _told(self, trials: Sequence[Trial]) -> Sequence[Trial]:
        """What is known of the trials, clock or no clock.

        A lone worker may or may not have finished what it took last: nothing of it is told, so that the clock has no
        say in what is proposed, and equal seeds give equal searches.
        """
        latest = max((trial.number for trial in trials), default=0) if self._latest is None else self._latest
        if self._places > 1:
            return trials
        return [rungs.as_if_running(trial) if trial.number == latest else trial for trial in trials]

    def _propose(self, trials: Sequence[Trial], told: Sequence[Trial], count: int) -> Ending | None:
        over = {trial.number for trial in told if trial.state in (TrialState.COMPLETE, TrialState.DIVERGED)}
        known = [trial.configuration for trial in trials if trial.number not in over]
        # the generator depends on how many stand in the record, so that a resumed search does not repeat itself
        generator = np.random.default_rng([self.study.seed, len(trials)])
        began = time.monotonic()
        configurations = self.proposer.propose(
            self.study.search_space,
            scale(self.study),
            self.study.objectives,
            asking.observations(self.study, told),
            known,
            count,
            generator,
            asking.demands(self.study, told),
        )
        self.proposing_seconds = time.monotonic() - began
        if self._places > 1:
            self._rests_until = time.monotonic() + REST * self.proposing_seconds
        fresh = sum(trial.origin in rungs.SEARCHED for trial in trials) < self.study.initial_count
        if configurations:
            origin = Origin.INITIAL if fresh else Origin.MODEL
            return self._add((), asking.proposals(configurations, trials, origin))
        if rungs.is_over(self.study, trials, more_to_come=False):
            return Ending.EXHAUSTED
        return self._add_late(trials, len(trials))

    def _add_late(self, trials: Sequence[Trial], room: int) -> Ending | None:
        """Adds what the latest trial of a lone worker decides, when nothing else is left to do."""
        late = rungs.promotions(self.study, trials, more_to_come=False)[: max(0, room)]
        return self._add(late, asking.missing_control(self.study, trials))

    def _add(self, promoted: Sequence[int], proposals: Sequence[Proposal]) -> Ending | None:
        """Nothing, while the study takes trials."""
        numbers = self.lease.queue(promoted, proposals)
        if numbers is None:
            return Ending.STOPPED
        self._latest = numbers[-1] if numbers else self._latest
        return None
