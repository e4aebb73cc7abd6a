"""What the pages read: one frozen board of a study, kept until its revision moves on. No Streamlit here.

A board that moves on reads only the trials that have changed, so that a page of 20,000 trials costs no more per change
than one of 200. Everything is read through ``Overlook``, which cannot write.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from autopeft.errors import NotFoundError, StoreError
from autopeft.settings import database_url
from autopeft.store.overlook import Glance, Overlook, StudyLine, Volume
from autopeft.store.rows import Attempt, Event, Worker
from autopeft.study import Measurement
from dashboard.board import Board
from search_spaces.configuration import Configuration

KEPT_BOARDS = 4
"""Boards held in memory, those last looked at."""

R = TypeVar("R")


def database() -> str:
    """Address of the database that is shown."""
    return database_url(None)


def study_names(url: str) -> list[str]:
    """Names of all studies, the latest first.

    Raises:
        StoreError: If the database is missing, away, or of another version.
    """
    return _read(url, lambda reader: reader.study_names())[::-1]


def study_lines(url: str) -> list[StudyLine]:
    """All studies with their counts, the latest first.

    Raises:
        StoreError: If they cannot be read.
    """
    return _read(url, lambda reader: reader.study_lines())


def revision(url: str, study: str) -> int:
    """Grows whenever anything in the study changes.

    Raises:
        StoreError: If it cannot be read.
    """
    return _read(url, lambda reader: reader.revision(study))


def board(url: str, study: str) -> Board:
    """The study as it stands.

    Raises:
        StoreError: If it cannot be read.
    """
    with _lock:
        key = (url, _identity(url), study)
        now = revision(url, study)
        held = _boards.pop(key, None)
        if held is None or held.revision != now:
            held = _read(url, lambda reader: _moved_on(reader, study, held, now))
        _boards[key] = held
        while len(_boards) > KEPT_BOARDS:
            _boards.pop(next(iter(_boards)))
        return held


def last_board(url: str, study: str) -> Board | None:
    """The study as it was last read, for when the database is away."""
    with _lock:
        return next((held for key, held in reversed(_boards.items()) if (key[0], key[2]) == (url, study)), None)


def configuration(shown: Board, url: str, number: int) -> Configuration | None:
    """The configuration of a trial of a board; None if there is no such trial."""
    return configurations(shown, url, (number,)).get(number)


def configurations(shown: Board, url: str, numbers: tuple[int, ...]) -> Mapping[int, Configuration]:
    """Configurations of trials of a board."""
    return _kept(shown, url, "configurations", numbers)


def marks(shown: Board, url: str, numbers: tuple[int, ...]) -> Mapping[int, tuple[int, ...]]:
    """Per-row marks of trials of a board."""
    return _kept(shown, url, "marks", numbers)


def details(shown: Board, url: str, numbers: tuple[int, ...]) -> Mapping[int, Mapping[str, Any]]:
    """What trials of a board learned beside their values."""
    return _kept(shown, url, "details", numbers)


def measurement(url: str, study: str, number: int) -> Measurement | None:
    """The measurement of a trial's highest rung, or None before there is one."""
    try:
        return _read(url, lambda reader: reader.measurement(study, number))
    except NotFoundError:
        return None


def attempts(url: str, study: str, number: int) -> list[Attempt]:
    """All attempts at a trial."""
    return _read(url, lambda reader: reader.attempts(study, number))


def error(url: str, study: str, number: int) -> str | None:
    """The whole error of a trial, with its traceback."""
    return _read(url, lambda reader: reader.trial(study, number)).error


def retried(url: str, study: str) -> list[tuple[int, Attempt]]:
    """Attempts that brought no measurement, the latest first."""
    return _read(url, lambda reader: reader.retried(study))


def failures(url: str, study: str) -> dict[str, int]:
    """Attempts by kind of failure."""
    return _read(url, lambda reader: reader.failures(study))


def workers(url: str) -> list[Worker]:
    """All workers, the latest first."""
    return _read(url, lambda reader: reader.workers())


def finished_by(url: str, study: str) -> dict[str, int]:
    """Measurements by worker."""
    return _read(url, lambda reader: reader.finished_by(study))


def latest_events(url: str, shown: Board, count: int) -> list[Event]:
    """The last ``count`` events of a study, the latest first."""
    after = max(0, shown.revision - 40 * count)
    return _read(url, lambda reader: reader.events(shown.study.name, after))[: -count - 1 : -1]


_lock = threading.RLock()
_boards: dict[tuple[str, object, str], Board] = {}


def _moved_on(reader: Overlook, study: str, held: Board | None, now: int) -> Board:
    stored = reader.study(study)
    if held is None:
        return Board(stored, tuple(reader.glances(study)), tuple(reader.volumes(study)), now)
    changed: dict[int, Glance] = dict(held.by_number)
    changed |= {glance.number: glance for glance in reader.glances(study, held.revision)}
    glances = tuple(changed[number] for number in sorted(changed))
    after = held.volumes[-1].id if held.volumes else 0
    volumes: tuple[Volume, ...] = (*held.volumes, *reader.volumes(study, after))
    return Board(stored, glances, volumes, now)


@lru_cache(maxsize=128)
def _kept(shown: Board, url: str, what: str, numbers: tuple[int, ...]) -> Mapping[int, Any]:
    """Kept for as long as the board is, so that what was shown can be shown again while the database is away."""
    reads: dict[str, Callable[[Overlook], Mapping[int, Any]]] = {
        "configurations": lambda reader: reader.configurations(shown.study.name, numbers),
        "marks": lambda reader: reader.marks(shown.study.name, numbers),
        "details": lambda reader: reader.details(shown.study.name, numbers),
    }
    return _read(url, reads[what])


def _read(url: str, what: Callable[[Overlook], R]) -> R:
    """What ``what`` reads; after a failure the next read opens the database anew."""
    try:
        return what(_open(url, _identity(url)))
    except NotFoundError:
        raise
    except StoreError:
        _open.cache_clear()
        raise


@lru_cache(maxsize=2)
def _open(url: str, identity: object) -> Overlook:
    return Overlook.open(url)


def _identity(url: str) -> Sequence[int] | None:
    """Tells one SQLite file from another that took its place; a server is the same for good."""
    if not url.startswith("sqlite:///"):
        return None
    try:
        status = Path(url.removeprefix("sqlite:///").partition("?")[0]).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def same_numbers(numbers: Sequence[int]) -> tuple[int, ...]:
    """Numbers as a key of what is kept: sorted, each once."""
    return tuple(sorted(set(numbers)))
