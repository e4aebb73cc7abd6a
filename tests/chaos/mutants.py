"""Bugs put in on purpose, by the name in ``CHAOS_MUTANT``, in tests and in the workers that they start.

``fence``: the attempt is no part of the fence. ``counter``: one counter of three attempts for whatever befalls a trial.
``begin``: SQLite's writing transactions begin without the lock.
"""

import os

from sqlalchemy import and_, literal

from autopeft.store import blame, database, lease, statements, tables
from autopeft.study import TrialState


def apply():
    """Puts in the mutant that the environment names; nothing without one."""
    name = os.environ.get("CHAOS_MUTANT")
    if name == "fence":
        # compiled at first use, so that this is in time; the number stays bound, for it is handed over
        statements.held_by = lambda trial_id, number: and_(
            tables.trial.c.id == trial_id, tables.is_running, literal(0) < number + literal(1)
        )
    elif name == "counter":
        lose = lease.lose

        def lose_by_attempts(connection, held, *words, **more):
            state = TrialState.QUARANTINED if held.attempt >= 3 else TrialState.QUEUED
            blame.after_loss = lambda *_: state
            return lose(connection, held, *words, **more)

        lease.lose = lose_by_attempts
    elif name == "begin":
        database._begin_sqlite.__code__ = (lambda connection: connection.exec_driver_sql("BEGIN") and None).__code__
