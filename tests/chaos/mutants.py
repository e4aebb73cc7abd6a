"""Bugs put in on purpose, by the name in ``CHAOS_MUTANT``, in tests and in the workers that they start.

``fence``: the attempt is no part of the fence. ``counter``: a fixed small limit for losses. ``begin``:
SQLite's writing transactions begin without the lock.
"""

import os

from sqlalchemy import and_, literal

from autopeft.store import blame, database, statements, tables
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
        blame.after_loss = lambda lost, *_: TrialState.QUARANTINED if lost >= 2 else TrialState.QUEUED
    elif name == "begin":
        database._begin_sqlite.__code__ = (lambda connection: connection.exec_driver_sql("BEGIN") and None).__code__
