"""Trials that somebody puts back into the queue by hand: ``autopeft requeue`` and ``autopeft retry``.

Their counters start anew; what was tried before stays in the record. Runs inside the caller's transaction.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, select, update

from autopeft.store import lease, log
from autopeft.store.blame import Failure
from autopeft.store.log import EventKind
from autopeft.store.tables import Outcome, trial
from autopeft.study import TrialState

_CLEAN = {"not_before": 0.0, "failures": 0, "lost": 0, "preempted": 0, "error": None, "finished_at": None}


def requeue(connection: Connection, row: Row[Any]) -> None:
    """Queues the trial of ``row``, which is locked and not COMPLETE; an attempt that runs is at its end."""
    if row.state == TrialState.RUNNING:
        text: dict[str, Any] = {"reason": "requeued by hand", "failure": Failure.PREEMPTED}
        lease.finish(connection, row, Outcome.PREEMPTED, TrialState.QUEUED, **text)
    changes = {"state": TrialState.QUEUED, "cancel_requested": False, **_CLEAN}
    connection.execute(update(trial).where(trial.c.id == row.id).values(changes))
    log.append(connection, EventKind.REQUEUED, row.study_id, row.id, was=row.state)


def retry(connection: Connection, study_id: int) -> list[int]:
    """Queues every trial of the study that had FAILED or was QUARANTINED; their numbers come back."""
    states = [TrialState.FAILED.value, TrialState.QUARANTINED.value]
    query = select(trial).where(trial.c.study_id == study_id, trial.c.state.in_(states)).order_by(trial.c.number)
    found = connection.execute(query.with_for_update()).all()
    for row in found:
        requeue(connection, row)
    return [row.number for row in found]
