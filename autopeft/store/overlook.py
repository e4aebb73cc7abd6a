"""Reading much of the record at a glance: what a page of twenty thousand trials shows, without any configuration.

A reader like any other, that cannot write. What has changed is read anew, not all: every change of a trial leaves an
event, so that the trials behind the events after a revision are those that can look otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from sqlalchemy import Row, Select, and_, func, select

from autopeft.store import rows, tables
from autopeft.store.database import Now
from autopeft.store.reader import Reader, study_row
from autopeft.study import Origin, Study, TrialState
from search_spaces.configuration import Configuration

OVERLAP = 200
"""Events before the known revision that are looked at again: a server may commit them out of order."""

CHUNK = 500
"""Numbers in one query."""


@dataclass(frozen=True, slots=True)
class Glance:
    """A trial without its configuration.

    Attributes:
        number: Number in the study.
        digest: Of its configuration: equal for repeats.
        state: Where it stands.
        origin: Who asked for it.
        label: Name for people, or None.
        replicate: Repeat number.
        rung: Rungs finished.
        attempt: Attempts so far.
        owner: Worker that holds it, while running.
        values: Of its highest rung's measurement; empty before one.
        error: First line of its error, or None.
        seconds: From the study's creation until it was finished, or None.
    """

    number: int
    digest: str
    state: TrialState
    origin: Origin
    label: str | None
    replicate: int
    rung: int
    attempt: int
    owner: str | None
    values: Mapping[str, float]
    error: str | None
    seconds: float | None

    def with_values(self, values: Mapping[str, float]) -> Self:
        """The same with other values."""
        return replace(self, values=values)


@dataclass(frozen=True, slots=True)
class Volume:
    """The hypervolume of the front at one time.

    Attributes:
        id: Grows.
        completed: Trials finished then.
        seconds: Since the study was created.
        hypervolume: In [0, 1].
    """

    id: int
    completed: int
    seconds: float
    hypervolume: float


@dataclass(frozen=True, slots=True)
class StudyLine:
    """A study in a list of studies.

    Attributes:
        study: What is asked.
        counts: Trials in each state that occurs.
        hypervolume: As last recorded, or None.
        front_size: Members of the front as last recorded.
        age_seconds: Since it was created.
    """

    study: Study
    counts: Mapping[TrialState, int]
    hypervolume: float | None
    front_size: int
    age_seconds: float


class Overlook(Reader):
    """A reader for pages: many trials in one query, each as light as it is shown."""

    def glances(self, study: str, after: int = 0) -> list[Glance]:
        """Trials that an event after revision ``after`` may have changed (all for 0), in order of their numbers."""
        trial, measurement, event = tables.trial, tables.measurement, tables.event
        highest = and_(measurement.c.trial_id == trial.c.id, measurement.c.rung == trial.c.rung - 1)
        with self._database.reading() as connection:
            found = study_row(connection, study)
            query: Select[Any] = (
                select(
                    *trial.c["number", "digest", "state", "origin", "label", "replicate", "rung", "attempt", "owner"],
                    measurement.c["values"].label("measured"),
                    func.substr(trial.c.error, 1, 400).label("error"),
                    (trial.c.finished_at - tables.study.c.created_at).label("seconds"),
                )
                .select_from(
                    trial.join(tables.study, tables.study.c.id == trial.c.study_id).outerjoin(measurement, highest)
                )
                .where(trial.c.study_id == found.id)
                .order_by(trial.c.number)
            )
            if after > 0:
                late = and_(event.c.study_id == found.id, event.c.id > after - OVERLAP)
                query = query.where(trial.c.id.in_(select(event.c.trial_id).where(late, event.c.trial_id.is_not(None))))
            return [_glance(row) for row in connection.execute(query)]

    def configurations(self, study: str, numbers: Sequence[int]) -> dict[int, Configuration]:
        """Configurations by number; numbers that do not exist are left out."""
        columns = tables.trial.c["number", "digest", "configuration"]
        found = self._by_number(study, numbers, select(*columns))
        return {row.number: self._configurations.read(row.digest, row.configuration) for row in found}

    def marks(self, study: str, numbers: Sequence[int]) -> dict[int, tuple[int, ...]]:
        """Per-row marks of the highest measurement by number; only of those that have any."""
        found = self._by_number(study, numbers, self._measured("correct"))
        return {row.number: tuple(int(mark) for mark in row.correct) for row in found if row.correct}

    def details(self, study: str, numbers: Sequence[int]) -> dict[int, Mapping[str, Any]]:
        """What trials learned beside their values, by number; only of those that learned any."""
        found = self._by_number(study, numbers, self._measured("details"))
        return {row.number: row.details for row in found if row.details}

    def volumes(self, study: str, after: int = 0) -> list[Volume]:
        """The hypervolume over time, of recorded fronts with an id above ``after``, oldest first."""
        front = tables.front
        with self._database.reading() as connection:
            mine = front.c.study_id == study_row(connection, study).id
            columns = front.c["id", "completed", "seconds", "hypervolume"]
            query: Select[Any] = select(*columns).where(mine, front.c.id > after).order_by(front.c.id)
            return [Volume(*row) for row in connection.execute(query)]

    def study_lines(self) -> list[StudyLine]:
        """All studies, the latest first."""
        with self._database.reading() as connection:
            counts = self._counts(connection.execute(_COUNTS))
            fronts = {row.study_id: row for row in connection.execute(_LATEST)}
            created: Select[Any] = select(tables.study.c.id, (Now() - tables.study.c.created_at).label("age"))
            found = connection.execute(created.order_by(tables.study.c.id.desc())).all()
            return [
                StudyLine(
                    self._studies.read(connection, row.id),
                    counts.get(row.id, {}),
                    fronts[row.id].hypervolume if row.id in fronts else None,
                    fronts[row.id].size if row.id in fronts else 0,
                    row.age,
                )
                for row in found
            ]

    def retried(self, study: str) -> list[tuple[int, rows.Attempt]]:
        """(trial, attempt) of every attempt that brought no measurement, the latest first."""
        attempt, trial = tables.attempt, tables.trial
        with self._database.reading() as connection:
            mine = and_(trial.c.study_id == study_row(connection, study).id, attempt.c.failure.is_not(None))
            query: Select[Any] = (
                select(attempt, trial.c.number.label("trial_number"))
                .select_from(attempt.join(trial, trial.c.id == attempt.c.trial_id))
                .where(mine)
                .order_by(attempt.c.id.desc())
                .limit(CHUNK)
            )
            return [(row.trial_number, rows.attempt_of(row)) for row in connection.execute(query)]

    def finished_by(self, study: str) -> dict[str, int]:
        """Measurements by worker."""
        attempt, trial = tables.attempt, tables.trial
        with self._database.reading() as connection:
            mine = trial.c.study_id == study_row(connection, study).id
            query: Select[Any] = (
                select(attempt.c.worker, func.count().label("total"))
                .select_from(attempt.join(trial, trial.c.id == attempt.c.trial_id))
                .where(mine, attempt.c.outcome == tables.Outcome.COMPLETE)
                .group_by(attempt.c.worker)
            )
            return {row.worker: row.total for row in connection.execute(query)}

    def _measured(self, column: str) -> Select[Any]:
        trial, measurement = tables.trial, tables.measurement
        highest = and_(measurement.c.trial_id == trial.c.id, measurement.c.rung == trial.c.rung - 1)
        return select(trial.c.number, measurement.c[column]).select_from(trial.join(measurement, highest))

    def _by_number(self, study: str, numbers: Sequence[int], query: Select[Any]) -> list[Row[Any]]:
        with self._database.reading() as connection:
            mine = query.where(tables.trial.c.study_id == study_row(connection, study).id)
            found: list[Row[Any]] = []
            for start in range(0, len(numbers), CHUNK):
                part = [int(number) for number in numbers[start : start + CHUNK]]
                found += connection.execute(mine.where(tables.trial.c.number.in_(part))).all()
            return found

    @staticmethod
    def _counts(found: Iterable[Row[Any]]) -> dict[int, dict[TrialState, int]]:
        counts: dict[int, dict[TrialState, int]] = {}
        for row in found:
            counts.setdefault(row.study_id, {})[TrialState(row.state)] = row.total
        return counts


def _latest_fronts() -> Select[Any]:
    front, member = tables.front, tables.front_member
    newest = select(func.max(front.c.id)).group_by(front.c.study_id)
    size = select(func.count()).where(member.c.front_id == front.c.id).scalar_subquery()
    return select(*front.c["study_id", "hypervolume"], size.label("size")).where(front.c.id.in_(newest))


_LATEST = _latest_fronts()
_COUNTS: Select[Any] = select(*tables.trial.c["study_id", "state"], func.count().label("total")).group_by(
    *tables.trial.c["study_id", "state"]
)


def _glance(row: Row[Any]) -> Glance:
    return Glance(
        row.number,
        row.digest,
        TrialState(row.state),
        Origin(row.origin),
        row.label,
        row.replicate,
        row.rung,
        row.attempt,
        row.owner,
        row.measured or {},
        row.error.strip().partition("\n")[0] if row.error else None,
        row.seconds,
    )
