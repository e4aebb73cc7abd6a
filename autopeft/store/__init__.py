"""The record, and the only room that speaks SQL. ``Store`` changes it, ``Reader`` looks, ``upgrade`` migrates it.

Loaded at first use: what only wants to know the kinds of failure loads no SQL.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autopeft.store.blame import Failure, systematic_failure
    from autopeft.store.migrate import backup, current_revision, ensure_current, head_revision, problems, upgrade
    from autopeft.store.reader import Reader
    from autopeft.store.rows import Attempt, Event, Worker
    from autopeft.store.store import Store
    from autopeft.store.tables import Outcome

_PLACES = {
    "blame": ("Failure", "systematic_failure"),
    "migrate": ("backup", "current_revision", "ensure_current", "head_revision", "problems", "upgrade"),
    "reader": ("Reader",),
    "rows": ("Attempt", "Event", "Worker"),
    "store": ("Store",),
    "tables": ("Outcome",),
}

__all__ = [
    "Attempt",
    "Event",
    "Failure",
    "Outcome",
    "Reader",
    "Store",
    "Worker",
    "backup",
    "current_revision",
    "ensure_current",
    "head_revision",
    "problems",
    "systematic_failure",
    "upgrade",
]


def __getattr__(name: str) -> object:
    for module, names in _PLACES.items():
        if name in names:
            return getattr(import_module(f"autopeft.store.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
