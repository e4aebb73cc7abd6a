"""What the pages read: one frozen snapshot of a study, kept until the study's revision moves on. No Streamlit here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from autopeft.errors import StoreError
from autopeft.settings import database_url
from autopeft.standing import Standing, standing
from autopeft.store.reader import Reader
from autopeft.study import Origin, Study, Trial, TrialState


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A study as it stood at one revision.

    Attributes:
        study: The study.
        trials: All its trials, in order of their numbers.
        standing: Its fronts and hypervolumes.
        revision: Of which this is the picture.
    """

    study: Study
    trials: Sequence[Trial]
    standing: Standing
    revision: int

    @property
    def complete(self) -> list[Trial]:
        """Trials that have been measured."""
        return [trial for trial in self.trials if trial.state is TrialState.COMPLETE]

    @property
    def has_points(self) -> bool:
        """Whether any trial with an adapter has been measured."""
        return any(trial.origin is not Origin.REFERENCE for trial in self.complete)

    @property
    def front_numbers(self) -> frozenset[int]:
        """Numbers of the members of the front."""
        return frozenset(trial.number for trial in self.standing.front)

    def count(self, *states: TrialState) -> int:
        """Number of trials in ``states``."""
        return sum(trial.state in states for trial in self.trials)

    @property
    def expected(self) -> int:
        """Trials in all, once everything asked for is queued: proposals, control and reference."""
        extra = sum(trial.origin in (Origin.CONTROL, Origin.REFERENCE) for trial in self.trials)
        return max(self.study.trials + extra, len(self.trials))

    def kind(self, trial: Trial) -> str:
        """What a point is: on the front, dominated, control or head only."""
        if trial.origin is Origin.REFERENCE:
            return "head only"
        if trial.origin is Origin.CONTROL:
            return "control"
        return "front" if trial.number in self.front_numbers else "dominated"

    def trial(self, number: int | None) -> Trial | None:
        """The trial of that number, or None."""
        return next((trial for trial in self.trials if trial.number == number), None)


def database() -> str:
    """Address of the database that is shown."""
    return database_url(None)


def study_names(url: str) -> list[str]:
    """Names of all studies, the latest first.

    Raises:
        StoreError: If the database is missing, away, or of another version.
    """
    return _reader(url).study_names()[::-1]


def revision(url: str, study: str) -> int:
    """Grows whenever anything in the study changes.

    Raises:
        StoreError: If it cannot be read.
    """
    return _reader(url).revision(study)


def snapshot(url: str, study: str) -> Snapshot:
    """The study as it stands.

    Raises:
        StoreError: If it cannot be read.
    """
    return _snapshot(url, _identity(url), study, revision(url, study))


@lru_cache(maxsize=8)
def _snapshot(url: str, identity: object, study: str, revision: int) -> Snapshot:
    reader = _reader(url)
    stored, trials = reader.study(study), reader.trials(study)
    return Snapshot(stored, trials, standing(stored, trials), revision)


def _reader(url: str) -> Reader:
    reader = _open(url, _identity(url))
    try:
        reader.study_names()
    except StoreError:
        _open.cache_clear()
        raise
    return reader


@lru_cache(maxsize=2)
def _open(url: str, identity: object) -> Reader:
    return Reader.open(url)


def _identity(url: str) -> object:
    """Tells one SQLite file from another that took its place; a server is the same for good."""
    if not url.startswith("sqlite:///"):
        return None
    try:
        status = Path(url.removeprefix("sqlite:///").partition("?")[0]).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
