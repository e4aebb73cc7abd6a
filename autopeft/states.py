"""Where a trial stands, and who asked for it."""

from __future__ import annotations

from enum import StrEnum


class TrialState(StrEnum):
    """Where a trial stands; only the five verbs change it."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    COMPLETE = "COMPLETE"
    DIVERGED = "DIVERGED"
    FAILED = "FAILED"
    QUARANTINED = "QUARANTINED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """Whether no verb but a request by hand moves the trial any more."""
        return self not in (TrialState.QUEUED, TrialState.RUNNING, TrialState.PAUSED)

    @property
    def rests(self) -> bool:
        """Whether the trial has ended, or waits at a rung for nothing but a promotion."""
        return self.is_final or self is TrialState.PAUSED


class Origin(StrEnum):
    """Who asked for a trial."""

    CONTROL = "control"
    REFERENCE = "reference"
    CONFIRMATION = "confirmation"

    @property
    def is_searched(self) -> bool:
        """Whether the search itself proposed it, so that it may stand on the search's front."""
        return self in (Origin.INITIAL, Origin.MODEL)

    @property
    def is_shown(self) -> bool:
        """Whether it counts beside others; a reference is shown apart, and what is trained again adds to another."""
        return self not in (Origin.REFERENCE, Origin.CONFIRMATION)

    INITIAL = "initial"
    MODEL = "model"
