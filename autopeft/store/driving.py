"""What a study's driver does on one connection: hold the driver lease, number and insert proposals.

The epoch is the driver's fencing token, as the attempt is the worker's. Each function runs inside the caller's
writing transaction; none of them commits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, insert, not_, or_, select, update

from autopeft.errors import LeaseLostError, StudyDrivenError
from autopeft.store import log
from autopeft.store.database import Now
from autopeft.store.log import EventKind
from autopeft.store.reader import study_row
from autopeft.store.tables import StudyState, checkpoint, study, trial
from autopeft.study import Proposal, TrialState


def acquire(connection: Connection, name: str, owner: str, lease_seconds: float) -> int:
    """The new epoch of the study, which ``owner`` now drives; a stopped study is open again.

    Raises:
        NotFoundError: If there is no such study.
        StudyDrivenError: If another driver holds a lease that has not run out.
    """
    found = study_row(connection, name)
    is_free = or_(study.c.driver.is_(None), study.c.driver == owner, study.c.driver_expires_at <= Now())
    epoch = connection.scalar(
        update(study)
        .where(study.c.id == found.id, is_free)
        .values(
            driver=owner,
            driver_epoch=study.c.driver_epoch + 1,
            driver_expires_at=Now() + lease_seconds,
            state=StudyState.OPEN,
        )
        .returning(study.c.driver_epoch)
    )
    if epoch is None:
        message = (
            f"study {name!r} is driven by {found.driver}: stop that one, or wait {lease_seconds:.0f} s if it is gone"
        )
        raise StudyDrivenError(message, str(found.driver))
    log.append(connection, EventKind.DRIVER_ACQUIRED, found.id, owner=owner, epoch=epoch)
    return int(epoch)


def renew(connection: Connection, name: str, epoch: int, lease_seconds: float) -> Row[Any]:
    """The study's row, locked, with its driver lease renewed.

    Raises:
        LeaseLostError: If the epoch is no longer the study's.
    """
    row = connection.execute(
        update(study)
        .where(_holds(name, epoch))
        .values(driver_expires_at=Now() + lease_seconds)
        .returning(study.c.id, study.c.name, study.c.state, study.c.next_number)
    ).one_or_none()
    if row is None:
        raise LeaseLostError(f"study {name!r} is no longer driven by epoch {epoch}: another driver took it")
    return row


def release(connection: Connection, name: str, epoch: int) -> None:
    """Frees the study; nothing if another driver has it already."""
    changes = {"driver": None, "driver_expires_at": None}
    freed = connection.scalar(update(study).where(_holds(name, epoch)).values(changes).returning(study.c.id))
    if freed is not None:
        log.append(connection, EventKind.DRIVER_RELEASED, freed, epoch=epoch)


def _holds(name: str, epoch: int) -> ColumnElement[bool]:
    return and_(study.c.name == name, study.c.driver_epoch == epoch, study.c.driver.is_not(None))


def enqueue(connection: Connection, driven: Row[Any], proposals: Sequence[Proposal]) -> list[int]:
    """Numbers of the proposals that were new to the study, in their order; the rest is skipped.

    Raises:
        LeaseLostError: If the study was stopped.
    """
    _require_open(driven)
    known = _known(connection, driven.id, proposals)
    fresh: list[Proposal] = []
    for proposal in proposals:
        key = (proposal.configuration.digest, proposal.replicate)
        if key not in known:
            known.add(key)
            fresh.append(proposal)
    if not fresh:
        return []
    numbers = list(range(driven.next_number, driven.next_number + len(fresh)))
    rows = [_row(number, proposal) for number, proposal in zip(numbers, fresh, strict=True)]
    connection.execute(insert(trial).values(study_id=driven.id, not_before=0.0, created_at=Now()), rows)
    connection.execute(update(study).where(study.c.id == driven.id).values(next_number=numbers[-1] + 1))
    _log_enqueued(connection, driven.id, numbers[0])
    return numbers


def _require_open(driven: Row[Any]) -> None:
    if driven.state == StudyState.STOPPED:
        raise LeaseLostError(f"study {driven.name!r} was stopped: it takes no more trials until it is resumed")


def promote(connection: Connection, driven: Row[Any], numbers: Sequence[int]) -> list[int]:
    """Numbers of those of the trials that were PAUSED, now queued for their next rung; the rest is left as it is.

    Raises:
        LeaseLostError: If the study was stopped.
    """
    _require_open(driven)
    changed = update(trial).where(
        trial.c.study_id == driven.id, trial.c.number.in_(list(numbers)), trial.c.state == TrialState.PAUSED.value
    )
    queued = connection.execute(
        changed.values(state=TrialState.QUEUED.value, not_before=0.0).returning(*trial.c["id", "number", "rung"])
    ).all()
    events = [{"trial_id": row.id, "detail": {"rung": row.rung}} for row in queued]
    log.append_many(connection, EventKind.PROMOTED, driven.id, events)
    return sorted(row.number for row in queued)


def forget_checkpoints(connection: Connection, driven: Row[Any], *, paused: bool) -> dict[int, list[str]]:
    """Artifacts that remain, by number of each trial whose checkpoints were dropped, now or before."""
    states = [TrialState.COMPLETE, TrialState.DIVERGED, TrialState.CANCELLED, *([TrialState.PAUSED] if paused else [])]
    done = and_(trial.c.study_id == driven.id, trial.c.state.in_([state.value for state in states]))
    is_result = and_(trial.c.state == TrialState.COMPLETE.value, checkpoint.c.rung == trial.c.rung - 1)
    stale = select(trial.c.id).where(trial.c.id == checkpoint.c.trial_id, done, not_(is_result)).exists()
    connection.execute(delete(checkpoint).where(stale))
    joined = trial.outerjoin(checkpoint, checkpoint.c.trial_id == trial.c.id)
    kept: dict[int, list[str]] = {}
    for number, path in connection.execute(select(trial.c.number, checkpoint.c.path).select_from(joined).where(done)):
        kept.setdefault(number, []).extend([path] if path else [])
    return kept


def _known(connection: Connection, study_id: int, proposals: Sequence[Proposal]) -> set[tuple[str, int]]:
    digests = {proposal.configuration.digest for proposal in proposals}
    query = select(trial.c.digest, trial.c.replicate).where(trial.c.study_id == study_id, trial.c.digest.in_(digests))
    return {(digest, replicate) for digest, replicate in connection.execute(query)}


def _row(number: int, proposal: Proposal) -> dict[str, Any]:
    return {
        "number": number,
        "configuration": proposal.configuration.to_json(),
        "digest": proposal.configuration.digest,
        "replicate": proposal.replicate,
        "origin": proposal.origin.value,
        "label": proposal.label,
        "priority": proposal.priority,
        "state": TrialState.QUEUED.value,
        "rung": proposal.rung,
        "attempt": 0,
        "cancel_requested": False,
        "failures": 0,
        "lost": 0,
        "preempted": 0,
    }


def _log_enqueued(connection: Connection, study_id: int, first: int) -> None:
    query = select(trial.c.id, trial.c.origin, trial.c.label).order_by(trial.c.number)
    added = connection.execute(query.where(trial.c.study_id == study_id, trial.c.number >= first))
    events = [
        {"trial_id": row.id, "detail": {"origin": row.origin, **({"label": row.label} if row.label else {})}}
        for row in added
    ]
    log.append_many(connection, EventKind.ENQUEUED, study_id, events)
