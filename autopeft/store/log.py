"""The audit log: one event for each verb, written in the verb's own transaction. Events are never changed.

Heartbeats are not events: they would hide what happened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, insert

from autopeft.store import statements
from autopeft.store.database import Now
from autopeft.store.tables import event


class EventKind(StrEnum):
    """What happened."""

    CREATED = "created"
    TARGET_SET = "target set"
    DRIVER_ACQUIRED = "driver acquired"
    DRIVER_RELEASED = "driver released"
    STOPPED = "stopped"
    ENQUEUED = "enqueued"
    LEASED = "leased"
    REPORTED = "reported"
    PROMOTED = "promoted"
    DIVERGED = "diverged"
    FAILED = "failed"
    LOST = "lost"
    HANDED_BACK = "handed back"
    CANCEL_REQUESTED = "cancel requested"
    CANCELLED = "cancelled"
    REQUEUED = "requeued"
    FRONT = "front"


def append(
    connection: Connection,
    kind: EventKind,
    study_id: int,
    trial_id: int | None = None,
    attempt: int | None = None,
    **detail: Any,
) -> None:
    """Adds one event."""
    row = {"study_id": study_id, "trial_id": trial_id, "attempt": attempt, "kind": kind.value}
    statements.EVENT.run(connection, **row, detail=statements.text_of(detail))


def append_many(connection: Connection, kind: EventKind, study_id: int, trials: Iterable[Mapping[str, Any]]) -> None:
    """Adds one event for each of ``trials``, mappings with ``trial_id`` and ``detail``."""
    rows = [{"study_id": study_id, "kind": kind.value, **trial} for trial in trials]
    if rows:
        connection.execute(insert(event).values(at=Now()), rows)
