"""The record, and the only room that speaks SQL. ``Store`` changes it, ``Reader`` looks, ``upgrade`` migrates it."""

from autopeft.store.migrate import current_revision, ensure_current, head_revision, upgrade
from autopeft.store.reader import Reader
from autopeft.store.rows import Attempt, Event, Worker
from autopeft.store.store import Store
from autopeft.store.tables import Outcome

__all__ = [
    "Attempt",
    "Event",
    "Outcome",
    "Reader",
    "Store",
    "Worker",
    "current_revision",
    "ensure_current",
    "head_revision",
    "upgrade",
]
