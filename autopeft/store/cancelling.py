"""Ends trials, or a whole study, on somebody's word. Runs inside the caller's writing transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, select, update

from autopeft.store import log
from autopeft.store.database import Now
from autopeft.store.log import EventKind
from autopeft.store.tables import StudyState, study, trial
from autopeft.study import TrialState


def stop(connection: Connection, study_id: int) -> int:
    """Stops the study and cancels all of its trials that are not final; their number comes back."""
    connection.execute(update(study).where(study.c.id == study_id).values(state=StudyState.STOPPED))
    log.append(connection, EventKind.STOPPED, study_id)
    states = [state.value for state in TrialState if not state.is_final]
    query = select(trial).where(trial.c.study_id == study_id, trial.c.state.in_(states))
    open_trials = connection.execute(query.with_for_update()).all()
    for row in open_trials:
        cancel(connection, row)
    return len(open_trials)


def cancel(connection: Connection, row: Row[Any]) -> TrialState:
    """The state of the trial of ``row``, which is locked: a waiting one is CANCELLED, a running one asked to stop."""
    state = TrialState(row.state)
    if state.is_final:
        return state
    if state is TrialState.RUNNING:
        changes: dict[str, Any] = {"cancel_requested": True}
        kind = EventKind.CANCEL_REQUESTED
    else:
        changes = {"state": TrialState.CANCELLED, "finished_at": Now()}
        state, kind = TrialState.CANCELLED, EventKind.CANCELLED
    connection.execute(update(trial).where(trial.c.id == row.id).values(changes))
    log.append(connection, kind, row.study_id, row.id)
    return state
