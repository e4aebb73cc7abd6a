"""The lease protocol on one connection: claim, fence, beat, finish, reap.

The attempt number is the fencing token: whoever holds an older one finds no row. Each function runs inside the
caller's writing transaction; none of them commits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, select, update

from autopeft.errors import LeaseLostError, StoreError
from autopeft.store import blame, log, statements
from autopeft.store.blame import Failure
from autopeft.store.database import Now
from autopeft.store.log import EventKind
from autopeft.store.tables import Outcome, attempt, is_running, trial
from autopeft.study import Measurement, TrialState


def fence(trial_id: int, number: int) -> ColumnElement[bool]:
    """True for the trial while attempt ``number`` of it holds the lease."""
    return statements.held_by(trial_id, number)


def claim(connection: Connection, name: str, study_id: int | None, lease_seconds: float) -> Row[Any] | None:
    """The first queued trial, now leased to worker ``name``; None if none is due. One atomic statement.

    Args:
        connection: Of a writing transaction.
        name: The worker.
        study_id: Only trials of this study; None for any.
        lease_seconds: How long the lease lasts without a beat.
    """
    who = {"worker": name, "lease": float(lease_seconds)}
    if study_id is None:
        found = statements.CLAIM_ANY.run(connection, **who)
    else:
        found = statements.CLAIM_OF_STUDY.run(connection, of_study=study_id, **who)
    taken: Row[Any] | None = found.one_or_none()
    if taken is not None:
        _begin_attempt(connection, taken, name)
    return taken


def _begin_attempt(connection: Connection, taken: Row[Any], name: str) -> None:
    known = statements.WORKER_SEEN.run(connection, seen=name).scalar()
    environment = statements.text_of(statements.values_of(known) or {})
    begun = {"trial_id": taken.id, "number": taken.attempt, "worker": name, "environment": environment}
    statements.BEGIN_ATTEMPT.run(connection, **begun)
    log.append(connection, EventKind.LEASED, taken.study_id, taken.id, taken.attempt, worker=name)


def beat(connection: Connection, trial_id: int, number: int, lease_seconds: float) -> bool:
    """Renews the lease and returns whether somebody asked to cancel the trial.

    Raises:
        LeaseLostError: If attempt ``number`` no longer holds it.
    """
    key = {"held": trial_id, "fence": number}
    renewed = statements.BEAT.run(connection, **key, lease=float(lease_seconds)).one_or_none()
    if renewed is None:
        raise lost(connection, trial_id, number)
    statements.WORKER_SEEN.run(connection, seen=renewed.owner)
    return bool(renewed.cancel_requested)


def complete(
    connection: Connection, trial_id: int, number: int, measured: Measurement, environment: Mapping[str, str] | None
) -> None:
    """Records what attempt ``number`` measured; nothing if that is in the record already.

    Args:
        connection: Of a writing transaction.
        trial_id: The trial.
        number: The attempt that holds it.
        measured: What came of it.
        environment: What the attempt rests on beside what its worker said when it registered.

    Raises:
        LeaseLostError: If the attempt no longer holds the trial.
        StoreError: If the measurement is of another rung than was ordered.
    """
    key = {"held": trial_id, "fence": number}
    done = statements.COMPLETE.run(connection, **key, finished=measured.rung).one_or_none()
    if done is None:
        held = hold(connection, trial_id, number, Outcome.COMPLETE)
        if held is not None:
            raise StoreError(f"trial {held.number} was ordered at rung {held.rung}, got rung {measured.rung}")
        return
    ended = statements.END_COMPLETE.run(connection, **key).one()
    if environment:
        found = statements.text_of({**statements.values_of(ended.environment), **environment})
        statements.ENVIRONMENT.run(connection, **key, found=found)
    _record(connection, trial_id, number, measured)
    state = {"state": TrialState.COMPLETE.value}
    log.append(connection, EventKind.REPORTED, done.study_id, trial_id, number, worker=ended.worker, **state)


def _record(connection: Connection, trial_id: int, number: int, measured: Measurement) -> None:
    key = {"trial_id": trial_id, "rung": measured.rung, "attempt": number}
    found = {
        "values": statements.text_of(dict(measured.values)),
        "curve": statements.text_of([list(point) for point in measured.curve]),
        "correct": "".join(map(str, measured.correct)),
    }
    statements.MEASUREMENT.run(connection, **key, **found)
    if measured.artifact is not None:
        statements.CHECKPOINT.run(connection, **key, path=measured.artifact, sha256=measured.sha256)


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
    failure: Failure | None = None,
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
        .values(finished_at=Now(), outcome=outcome, reason=reason, traceback=traceback, failure=failure)
    )
    more = {"reason": reason, "failure": failure and failure.value}
    detail = {"state": state.value, **{name: value for name, value in more.items() if value}}
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
        lose(connection, held, f"worker {held.owner} was lost: its lease ran out")
    return len(expired)


def lose(
    connection: Connection, held: Row[Any], reason: str, traceback: str = "", *, explained: bool = False
) -> TrialState:
    """Ends the attempt that holds ``held`` as LOST; the trial's new state comes back.

    Args:
        connection: Of a writing transaction.
        held: The trial, locked.
        reason: Why, in one line.
        traceback: Last words of the process that trained it.
        explained: Whether the reason says more than that nobody was heard of; then it is the trial's error too.
    """
    text: dict[str, Any] = {"reason": reason, "traceback": traceback or None, "failure": Failure.LOST}
    if held.cancel_requested:
        finish(connection, held, Outcome.LOST, TrialState.CANCELLED, **text)
        return TrialState.CANCELLED
    workers = _workers_that_lost(connection, held)
    state = blame.after_loss(held.lost + 1, len(workers), *_losses_of_others(connection, held, workers))
    changes: dict[str, Any] = {"lost": held.lost + 1}
    if explained:
        changes["error"] = f"{reason}\n{traceback}".rstrip()
    if state is TrialState.QUEUED:
        changes["not_before"] = Now() + blame.wait_seconds(held.lost)
    else:
        said = changes.get("error", reason)
        changes["error"] = f"lost {held.lost + 1} times, with the workers {', '.join(sorted(workers))}; last: {said}"
    finish(connection, held, Outcome.LOST, state, **text, **changes)
    return state


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


def _losses_of_others(connection: Connection, held: Row[Any], workers: set[str]) -> tuple[int, int]:
    """Attempts at the study's other trials that have ended, and how many of them were lost.

    Where one worker alone lost the trial only that worker's count: a machine that loses all it takes proves nothing.
    """
    if held.lost + 1 < blame.LOST_LIMIT:
        return 0, 0
    others = select(attempt.c.outcome, func.count()).join(trial, trial.c.id == attempt.c.trial_id)
    others = others.where(trial.c.study_id == held.study_id, trial.c.id != held.id, attempt.c.outcome.is_not(None))
    if len(workers) == 1:
        others = others.where(attempt.c.worker.in_(workers))
    counts: dict[str, int] = {row[0]: row[1] for row in connection.execute(others.group_by(attempt.c.outcome))}
    return sum(counts.values()), counts.get(Outcome.LOST, 0)
