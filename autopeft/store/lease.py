"""The lease protocol on one connection: claim, fence, beat, finish, reap.

The attempt number is the fencing token: whoever holds an older one finds no row. Each function runs inside the
caller's writing transaction; none of them commits.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, func, insert, select, update

from autopeft.errors import LeaseLostError
from autopeft.store import blame, log
from autopeft.store.database import Now
from autopeft.store.log import EventKind
from autopeft.store.tables import Outcome, attempt, is_queued, is_running, trial, worker
from autopeft.study import TrialState


def fence(trial_id: int, number: int) -> ColumnElement[bool]:
    """True for the trial while attempt ``number`` of it holds the lease."""
    return and_(trial.c.id == trial_id, trial.c.attempt == number, is_running)


def claim(connection: Connection, name: str, study_id: int | None, lease_seconds: float) -> Row[Any] | None:
    """The first queued trial, now leased to worker ``name``; None if none is due. One atomic statement.

    Args:
        connection: Of a writing transaction.
        name: The worker.
        study_id: Only trials of this study; None for any.
        lease_seconds: How long the lease lasts without a beat.
    """
    first = (
        select(trial.c.id)
        .where(is_queued, trial.c.not_before <= Now())
        .order_by(trial.c.priority.desc(), trial.c.study_id, trial.c.number)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if study_id is not None:
        first = first.where(trial.c.study_id == study_id)
    taken = connection.execute(
        update(trial)
        .where(trial.c.id == first.scalar_subquery(), is_queued)
        .values(
            state=TrialState.RUNNING,
            attempt=trial.c.attempt + 1,
            owner=name,
            expires_at=Now() + lease_seconds,
            cancel_requested=False,
        )
        .returning(trial)
    ).one_or_none()
    if taken is not None:
        _begin_attempt(connection, taken, name)
    return taken


def _begin_attempt(connection: Connection, taken: Row[Any], name: str) -> None:
    query = update(worker).where(worker.c.name == name).values(seen_at=Now()).returning(worker.c.environment)
    environment = connection.scalar(query) or {}
    row = {"trial_id": taken.id, "number": taken.attempt, "worker": name, "environment": environment}
    connection.execute(insert(attempt).values(started_at=Now(), **row))
    log.append(connection, EventKind.LEASED, taken.study_id, taken.id, taken.attempt, worker=name)


def beat(connection: Connection, trial_id: int, number: int, lease_seconds: float) -> bool:
    """Renews the lease and returns whether somebody asked to cancel the trial.

    Raises:
        LeaseLostError: If attempt ``number`` no longer holds it.
    """
    renewed = connection.execute(
        update(trial)
        .where(fence(trial_id, number))
        .values(expires_at=Now() + lease_seconds)
        .returning(trial.c.cancel_requested, trial.c.owner)
    ).one_or_none()
    if renewed is None:
        raise lost(connection, trial_id, number)
    connection.execute(update(worker).where(worker.c.name == renewed.owner).values(seen_at=Now()))
    return bool(renewed.cancel_requested)


def hold(connection: Connection, trial_id: int, number: int, outcome: Outcome) -> Row[Any] | None:
    """The trial, locked, if attempt ``number`` holds it; None if that attempt has already ended with ``outcome``.

    None is what makes a verb idempotent: its reply was lost, and it is sent again.

    Raises:
        LeaseLostError: If the attempt ended in another way.
    """
    held = connection.execute(select(trial).where(fence(trial_id, number)).with_for_update()).one_or_none()
    if held is not None:
        return held
    ended = select(attempt.c.outcome).where(attempt.c.trial_id == trial_id, attempt.c.number == number)
    if connection.scalar(ended) != outcome:
        raise lost(connection, trial_id, number)
    return None


def lost(connection: Connection, trial_id: int, number: int) -> LeaseLostError:
    """The error for an attempt that no longer holds its trial, saying what became of the trial."""
    row = connection.execute(select(trial).where(trial.c.id == trial_id)).one_or_none()
    if row is None:
        return LeaseLostError(f"attempt {number} holds no trial with id {trial_id}: there is none in this database")
    return LeaseLostError(
        f"trial {row.number} is no longer held by attempt {number} (it is {row.state}, attempt {row.attempt}):"
        " stop, and report nothing"
    )


def finish(
    connection: Connection,
    held: Row[Any],
    outcome: Outcome,
    state: TrialState,
    *,
    reason: str | None = None,
    traceback: str | None = None,
    **changes: Any,
) -> None:
    """Ends the attempt that holds ``held`` with ``outcome`` and moves the trial to ``state``, with ``changes``."""
    if state.is_final:
        changes["finished_at"] = Now()
    values = {"state": state, "owner": None, "expires_at": None, "cancel_requested": False, **changes}
    connection.execute(update(trial).where(fence(held.id, held.attempt)).values(values))
    connection.execute(
        update(attempt)
        .where(attempt.c.trial_id == held.id, attempt.c.number == held.attempt)
        .values(finished_at=Now(), outcome=outcome, reason=reason, traceback=traceback)
    )
    detail = {"state": state.value, **({"reason": reason} if reason else {})}
    log.append(connection, _KINDS[outcome], held.study_id, held.id, held.attempt, worker=held.owner, **detail)


_KINDS = {
    Outcome.COMPLETE: EventKind.REPORTED,
    Outcome.PAUSED: EventKind.REPORTED,
    Outcome.DIVERGED: EventKind.DIVERGED,
    Outcome.FAILED: EventKind.FAILED,
    Outcome.LOST: EventKind.LOST,
    Outcome.PREEMPTED: EventKind.HANDED_BACK,
    Outcome.CANCELLED: EventKind.CANCELLED,
}


def reap(connection: Connection, study_id: int | None) -> int:
    """Ends every attempt whose lease has expired, and returns how many there were."""
    query = select(trial).where(is_running, trial.c.expires_at <= Now())
    if study_id is not None:
        query = query.where(trial.c.study_id == study_id)
    expired = connection.execute(query.with_for_update(skip_locked=True)).all()
    for held in expired:
        _reap_one(connection, held)
    return len(expired)


def _reap_one(connection: Connection, held: Row[Any]) -> None:
    reason = f"worker {held.owner} was lost: its lease ran out"
    if held.cancel_requested:
        finish(connection, held, Outcome.LOST, TrialState.CANCELLED, reason=reason)
        return
    workers = _workers_that_lost(connection, held)
    state = blame.after_loss(held.lost + 1, len(workers))
    changes: dict[str, Any] = {"lost": held.lost + 1}
    if state is TrialState.QUEUED:
        changes["not_before"] = Now() + blame.wait_seconds(held.lost)
    else:
        changes["error"] = f"lost {held.lost + 1} times, with the workers {', '.join(sorted(workers))}"
    finish(connection, held, Outcome.LOST, state, reason=reason, **changes)


def _workers_that_lost(connection: Connection, held: Row[Any]) -> set[str]:
    """Workers that lost the trial since it last finished a rung, this one included."""
    mine = attempt.c.trial_id == held.id
    finished = select(func.coalesce(func.max(attempt.c.number), 0)).where(
        mine, attempt.c.outcome.in_([Outcome.COMPLETE, Outcome.PAUSED])
    )
    query = select(attempt.c.worker).where(
        mine, attempt.c.outcome == Outcome.LOST, attempt.c.number > finished.scalar_subquery()
    )
    return {*connection.scalars(query), held.owner}
