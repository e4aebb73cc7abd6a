"""The lease protocol on one connection: claim, fence, beat, finish, reap.

The attempt number is the fencing token: whoever holds an older one finds no row. Each function runs inside the
caller's writing transaction; none of them commits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, select, update

from autopeft.errors import LeaseLostError, StoreError
from autopeft.store import blame, log, statements, whole
from autopeft.store.blame import Failure
from autopeft.store.database import Now
from autopeft.store.log import EventKind
from autopeft.store.tables import Outcome, attempt, is_running, trial
from autopeft.study import Checkpoint, Measurement, TrialState


def fence(trial_id: int, number: int) -> ColumnElement[bool]:
    """True for the trial while attempt ``number`` of it holds the lease."""
    return statements.held_by(trial_id, number)


def asking(name: str, study_id: int | None, lease_seconds: float, revision: str) -> dict[str, Any]:
    """The parameters of a claim, as ``claim`` explains them."""
    who: dict[str, Any] = {"worker": name, "lease": float(lease_seconds), "revision": revision}
    return who if study_id is None else {**who, "of_study": study_id}


def claim(
    connection: Connection, name: str, study_id: int | None, lease_seconds: float, revision: str
) -> Row[Any] | None:
    """The first queued trial, now leased to worker ``name``; None if none is due. One atomic statement.

    Args:
        connection: Of a writing transaction.
        name: The worker.
        study_id: Only trials of this study; None for any.
        lease_seconds: How long the lease lasts without a beat.
        revision: Of the schema that this process knows; from a database of another nothing is taken.
    """
    who = asking(name, study_id, lease_seconds, revision)
    if whole.serves(connection):
        return whole.lease(connection, who)
    claim = statements.CLAIM_ANY if study_id is None else statements.CLAIM_OF_STUDY
    taken: Row[Any] | None = claim.run(connection, **who).one_or_none()
    if taken is not None:
        _begin_attempt(connection, taken, name)
    return taken


def claim_this(connection: Connection, trial_id: int, who: Mapping[str, Any]) -> Row[Any] | None:
    """The trial, now leased as ``claim`` does; None if it is not queued any more."""
    known = {name: value for name, value in who.items() if name != "of_study"}
    taken: Row[Any] | None = statements.CLAIM_THIS.run(connection, this=trial_id, **known).one_or_none()
    if taken is not None:
        _begin_attempt(connection, taken, who["worker"])
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
    at_once = whole.serves(connection)
    renewed = (
        (whole.BEAT if at_once else statements.BEAT).run(connection, **key, lease=float(lease_seconds)).one_or_none()
    )
    if renewed is None:
        raise lost(connection, trial_id, number)
    if not at_once:
        statements.WORKER_SEEN.run(connection, seen=renewed.owner)
    return bool(renewed.cancel_requested)


def report(
    connection: Connection,
    trial_id: int,
    number: int,
    measured: Measurement,
    environment: Mapping[str, str] | None,
    state: TrialState,
) -> None:
    """Records what attempt ``number`` measured; nothing if that is in the record already.

    Args:
        connection: Of a writing transaction.
        trial_id: The trial.
        number: The attempt that holds it.
        measured: What came of it.
        environment: What the attempt rests on beside what its worker said when it registered.
        state: Of the trial from now on: COMPLETE at the top rung, PAUSED below.

    Raises:
        LeaseLostError: If the attempt no longer holds the trial.
        StoreError: If the measurement is of another rung than was ordered.
    """
    if whole.serves(connection) and whole.report(connection, trial_id, number, measured, environment, state):
        return
    key = {"held": trial_id, "fence": number}
    done = statements.FINISH_RUNG[state].run(connection, **key, finished=measured.rung).one_or_none()
    if done is None:
        held = hold(connection, trial_id, number, Outcome(state))
        if held is not None:
            raise StoreError(f"trial {held.number} was ordered at rung {held.rung}, got rung {measured.rung}")
        return
    ended = statements.END_ATTEMPT[state].run(connection, **key).one()
    if environment:
        found = statements.text_of({**statements.values_of(ended.environment), **environment})
        statements.ENVIRONMENT.run(connection, **key, found=found)
    _record(connection, trial_id, number, measured)
    said: dict[str, Any] = {"worker": ended.worker, "state": state.value}
    if state is TrialState.PAUSED or measured.rung:
        said["rung"] = measured.rung
    log.append(connection, EventKind.REPORTED, done.study_id, trial_id, number, **said)


def report_and_claim(
    connection: Connection,
    trial_id: int,
    number: int,
    measured: Measurement,
    environment: Mapping[str, str] | None,
    state: TrialState,
    who: Mapping[str, Any],
) -> Row[Any] | None:
    """``report``, then ``claim`` with the parameters in ``who``; the row of the claim, or None.

    Where the report is in the record already its reply was lost, and with it that of the claim: the trial that the
    worker has held since is given again.

    Raises:
        LeaseLostError: As ``report``; nothing is claimed then.
        StoreError: As ``report``.
    """
    if whole.serves(connection):
        both = whole.report_and_lease(connection, trial_id, number, measured, environment, state, who)
        if both is not None:
            return None if both.id is None else both
    report(connection, trial_id, number, measured, environment, state)
    forgotten = statements.HELD.run(connection, worker=who["worker"], lease=who["lease"]).one_or_none()
    if forgotten is not None:
        return forgotten
    return claim(connection, who["worker"], who.get("of_study"), who["lease"], who["revision"])


def _record(connection: Connection, trial_id: int, number: int, measured: Measurement) -> None:
    key = {"trial_id": trial_id, "rung": measured.rung, "attempt": number}
    statements.MEASUREMENT.run(connection, **key, **statements.texts_of(measured))
    if measured.artifact is not None:
        statements.CHECKPOINT.run(connection, **key, path=measured.artifact, sha256=measured.sha256)


def history(connection: Connection, taken: Row[Any]) -> tuple[tuple[Checkpoint, ...], int]:
    """What earlier attempts left to go on from, the furthest first, and how many of them ran out of memory."""
    if taken.attempt == 1:
        return (), 0
    found = statements.CHECKPOINTS.run(connection, taken=taken.id)
    return tuple(Checkpoint(row.rung, row.path, row.sha256) for row in found), memory_failures(connection, taken.id)


def memory_failures(connection: Connection, trial_id: int) -> int:
    """How many attempts at the trial ran out of memory."""
    return int(statements.MEMORY_FAILURES.run(connection, taken=trial_id).scalar_one())


def keep_checkpoint(connection: Connection, held: Row[Any], checkpoint: Checkpoint) -> None:
    """Notes where attempt ``held.attempt`` left off; in place of one that stood on the way to the same rung."""
    key = {"trial_id": held.id, "rung": checkpoint.rung, "attempt": held.attempt}
    statements.CHECKPOINT.run(connection, **key, path=checkpoint.path, sha256=checkpoint.sha256)


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


def fail(connection: Connection, held: Row[Any], reason: str, traceback: str, failure: Failure) -> TrialState:
    """Ends the attempt that holds ``held`` as FAILED; the trial's new state comes back.

    A first lack of memory blames nobody: the next attempt takes smaller pieces.
    """
    changes: dict[str, Any] = {}
    if failure in blame.OUT_OF_MEMORY:
        blamed = memory_failures(connection, held.id) + 1
        state = blame.after_memory_failure(blamed)
    else:
        blamed = changes["failures"] = held.failures + 1
        state = blame.after_failure(blamed)
    if held.cancel_requested:
        state = TrialState.CANCELLED
    if failure not in blame.OUT_OF_MEMORY or state is not TrialState.QUEUED:
        changes["error"] = f"{reason}\n{traceback}".rstrip()
    due = Now() + blame.wait_seconds(blamed)
    text: dict[str, Any] = {"reason": reason, "traceback": traceback, "failure": failure}
    finish(connection, held, Outcome.FAILED, state, not_before=due, **text, **changes)
    return state


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
