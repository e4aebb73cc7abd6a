"""Claims trials that are to be trained beside one that a worker holds. Runs inside the caller's writing transaction.

Each is leased as by itself: with an attempt of its own, which fences it, and an expiry of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, Row, exists, select

from autopeft.store import lease, statements
from autopeft.store.blame import OUT_OF_MEMORY
from autopeft.store.tables import attempt, is_queued, trial
from search_spaces.configuration import Configuration

LOOKED_AT = 4
"""So many queued trials a member are looked at for one that fits."""


def claim(
    connection: Connection,
    held: Row[Any],
    count: int,
    who: Mapping[str, Any],
    fits: Callable[[Configuration], bool],
) -> list[Row[Any]]:
    """The rows of at most ``count`` trials that were queued beside ``held`` and now are leased.

    Args:
        connection: Of a writing transaction.
        held: The trial that they are to be beside, locked.
        count: Most.
        who: As ``lease.asking`` gives it.
        fits: Whether a configuration can be trained beside others.
    """
    if held.lost or held.failures or lease.memory_failures(connection, held.id):
        return []
    taken: list[Row[Any]] = []
    for number, configuration in _waiting(connection, held, LOOKED_AT * count):
        if len(taken) < count and fits(Configuration.from_json(configuration)):
            row = lease.claim_this(connection, number, who)
            taken += [] if row is None else [row]
    return taken


def _waiting(connection: Connection, held: Row[Any], most: int) -> list[tuple[int, Any]]:
    """Trials of the same study, replicate and rung that nothing has gone wrong with, with their configurations."""
    short = exists().where(attempt.c.trial_id == trial.c.id, attempt.c.failure.in_(sorted(OUT_OF_MEMORY)))
    alike = [trial.c[name] == getattr(held, name) for name in ("study_id", "replicate", "rung")]
    query = select(trial.c.id, trial.c.configuration).where(
        is_queued, statements.is_due(), *alike, trial.c.lost == 0, trial.c.failures == 0, ~short
    )
    query = query.order_by(trial.c.priority.desc(), trial.c.number).limit(most)
    return [(row.id, row.configuration) for row in connection.execute(query.with_for_update(skip_locked=True))]
