"""Reading the record: frozen values out, nothing in. The dashboard and the reading commands see only this.

Opened on its own it cannot write at all: SQLite is opened with ``mode=ro``, PostgreSQL in read-only transactions.
It never migrates.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, Row, Select, and_, case, func, select

from autopeft.errors import NotFoundError
from autopeft.probe import Probe
from autopeft.store import migrate, probes, rows, statements, tables
from autopeft.store.database import Database, Now
from autopeft.study import FrontRecord, Measurement, Study, Trial, TrialState


class Reader:
    """A view of the record. Each method is one consistent read, and its values are frozen.

    Every method raises ``NotFoundError`` for a study or trial that does not exist and ``StoreError`` if the database
    cannot be read.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._configurations = rows.Configurations()
        self._studies = _Studies()

    @classmethod
    def open(cls, url: str) -> Self:
        """A reader of the database at ``url``.

        Raises:
            NotFoundError: If the SQLite file does not exist.
            SchemaError: If the database is of another revision.
            StoreError: If it cannot be opened.
        """
        database = Database(url, read_only=True)
        with database.closed_unless_sound():
            database.require_file()
            migrate.require_current(database)
        return cls(database)

    def close(self) -> None:
        """Closes all connections."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def study_names(self) -> list[str]:
        """Names of all studies, oldest first."""
        with self._database.reading() as connection:
            return list(connection.scalars(select(tables.study.c.name).order_by(tables.study.c.id)))

    def study(self, name: str | None = None) -> Study:
        """The study of that name; without one the latest."""
        with self._database.reading() as connection:
            return self._studies.read(connection, study_row(connection, name).id)

    def probe_names(self) -> list[str]:
        """Names of all probes, oldest first."""
        with self._database.reading() as connection:
            return probes.names(connection)

    def probe(self, wanted: str, model_sha256: str | None = None) -> Probe:
        """The probe of that name, or the latest of that kind, of that model if one is given."""
        with self._database.reading() as connection:
            return probes.read(connection, wanted, model_sha256)

    def trials(self, study: str, states: Collection[TrialState] | None = None) -> list[Trial]:
        """Trials in order of their numbers, in two queries; only those in ``states`` if given."""
        with self._database.reading() as connection:
            found = study_row(connection, study)
            query = _trials(found.id).order_by(tables.trial.c.number)
            if states is not None:
                query = query.where(tables.trial.c.state.in_([state.value for state in states]))
            lower = _lower(connection, found.id)
            return [rows.trial_of(row, self._configurations, lower) for row in connection.execute(query)]

    def summaries(self, study: str) -> list[rows.Summary]:
        """All trials in order of their numbers, without their configurations: a tenth of what ``trials`` costs."""
        columns = tables.trial.c["number", "digest", "replicate", "state", "origin", "error"]
        with self._database.reading() as connection:
            query = _trials(study_row(connection, study).id).order_by(tables.trial.c.number)
            chosen: Select[Any] = query.with_only_columns(
                *columns, tables.measurement.c["values"], maintain_column_froms=True
            )
            return [rows.summary_of(row) for row in connection.execute(chosen)]

    def trial(self, study: str, number: int) -> Trial:
        """One trial; ``NotFoundError`` names the numbers that exist."""
        with self._database.reading() as connection:
            found = study_row(connection, study)
            row = connection.execute(_trials(found.id).where(tables.trial.c.number == number)).one_or_none()
            if row is None:
                raise _no_trial(found, number)
            return rows.trial_of(row, self._configurations, _lower(connection, found.id, row.id))

    def measurement(self, study: str, number: int) -> Measurement:
        """The measurement of the trial's highest rung."""
        measurement, checkpoint = tables.measurement, tables.checkpoint
        with self._database.reading() as connection:
            found = trial_row(connection, study, number)
            same_rung = and_(checkpoint.c.trial_id == found.id, checkpoint.c.rung == measurement.c.rung)
            query: Select[Any] = (
                select(
                    *measurement.c["rung", "curve", "correct", "details"],
                    measurement.c["values"].label("measured"),
                    *checkpoint.c["path", "sha256"],
                )
                .select_from(measurement.outerjoin(checkpoint, same_rung))
                .where(measurement.c.trial_id == found.id)
                .order_by(measurement.c.rung.desc())
                .limit(1)
            )
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFoundError(f"trial {number} of study {study!r} is {found.state} and has no measurement yet")
        return rows.measurement_of(row)

    def counts(self, study: str) -> dict[TrialState, int]:
        """How many trials are in each state; every state is a key."""
        state = tables.trial.c.state
        with self._database.reading() as connection:
            query = select(state, func.count().label("total")).group_by(state)
            mine = tables.trial.c.study_id == study_row(connection, study).id
            found = {row.state: row.total for row in connection.execute(query.where(mine))}
        return {state: found.get(state.value, 0) for state in TrialState}

    def fronts(self, study: str) -> list[FrontRecord]:
        """Fronts as they were recorded, oldest first."""
        front, member, trial = tables.front, tables.front_member, tables.trial
        with self._database.reading() as connection:
            mine = front.c.study_id == study_row(connection, study).id
            members: dict[int, list[int]] = {}
            joined = member.join(front, front.c.id == member.c.front_id).join(trial, trial.c.id == member.c.trial_id)
            query = select(member.c.front_id, trial.c.number).select_from(joined).where(mine)
            for front_id, number in connection.execute(query.order_by(member.c.front_id, member.c.position)):
                members.setdefault(front_id, []).append(number)
            found = connection.execute(select(front).where(mine).order_by(front.c.id))
            return [rows.front_of(row, members.get(row.id, [])) for row in found]

    def revision(self, study: str) -> int:
        """The study's highest event id: it has grown if anything has changed."""
        with self._database.reading() as connection:
            mine = tables.event.c.study_id == study_row(connection, study).id
            return connection.scalar(select(func.max(tables.event.c.id)).where(mine)) or 0

    def seconds_since_start(self, study: str) -> float:
        """Seconds since the study was created, by the database's clock."""
        with self._database.reading() as connection:
            started = select(Now() - tables.study.c.created_at)
            return float(connection.scalar(started.where(tables.study.c.id == study_row(connection, study).id)) or 0.0)

    def worker_seconds(self, study: str) -> tuple[float, float]:
        """Seconds of workers with attempts that have ended, well or badly, and with those that run, up to now.

        A moment in which one worker has several attempts, of a pack, counts once.
        """
        with self._database.reading() as connection:
            found = connection.execute(_worked(study_row(connection, study).id)).one()
        return float(found[0] or 0.0), float(found[1] or 0.0)

    def workers(self) -> list[rows.Worker]:
        """All workers that ever registered, the latest first."""
        worker = tables.worker
        query: Select[Any] = select(
            *worker.c["name", "host", "device", "pid", "environment"],
            (Now() - worker.c.started_at).label("age"),
            (Now() - worker.c.seen_at).label("silent"),
        ).order_by(worker.c.started_at.desc(), worker.c.name)
        with self._database.reading() as connection:
            return [rows.worker_of(row) for row in connection.execute(query)]

    def attempts(self, study: str, number: int) -> list[rows.Attempt]:
        """All attempts at a trial, the first first."""
        attempt = tables.attempt
        with self._database.reading() as connection:
            found = trial_row(connection, study, number)
            query = select(attempt).where(attempt.c.trial_id == found.id).order_by(attempt.c.number)
            return [rows.attempt_of(row) for row in connection.execute(query)]

    def environments(self, study: str, numbers: Collection[int] | None = None) -> dict[int, Mapping[str, str]]:
        """By number of each COMPLETE trial, what its measurement rests on: versions, device, hashes.

        Args:
            study: Name of the study.
            numbers: Only these trials; None: all.
        """
        attempt, trial = tables.attempt, tables.trial
        with self._database.reading() as connection:
            query: Select[Any] = (
                select(trial.c.number, attempt.c.environment)
                .select_from(attempt.join(trial, trial.c.id == attempt.c.trial_id))
                .where(
                    trial.c.study_id == study_row(connection, study).id, attempt.c.outcome == tables.Outcome.COMPLETE
                )
                .order_by(trial.c.number)
            )
            if numbers is not None:
                query = query.where(trial.c.number.in_(list(numbers)))
            return {row.number: row.environment for row in connection.execute(query)}

    def failures(self, study: str) -> dict[str, int]:
        """How many attempts ended with each kind of failure (``autopeft.store.blame.Failure``), most first."""
        attempt, trial = tables.attempt, tables.trial
        with self._database.reading() as connection:
            total = func.count().label("total")
            query: Select[Any] = (
                select(attempt.c.failure, total)
                .select_from(attempt.join(trial, trial.c.id == attempt.c.trial_id))
                .where(trial.c.study_id == study_row(connection, study).id, attempt.c.failure.is_not(None))
                .group_by(attempt.c.failure)
                .order_by(total.desc(), attempt.c.failure)
            )
            return {row.failure: row.total for row in connection.execute(query)}

    def events(self, study: str, after: int = 0) -> list[rows.Event]:
        """Events of a study with an id above ``after``, oldest first."""
        event, trial = tables.event, tables.trial
        with self._database.reading() as connection:
            query: Select[Any] = (
                select(*event.c["id", "kind", "at", "attempt", "detail"], trial.c.number)
                .select_from(event.outerjoin(trial, trial.c.id == event.c.trial_id))
                .where(event.c.study_id == study_row(connection, study).id, event.c.id > after)
                .order_by(event.c.id)
            )
            return [rows.event_of(row) for row in connection.execute(query)]


class _Studies:
    """Studies by id, each parsed once as long as its target stays: a specification can be large."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[tuple[Any, ...], Study]] = {}
        self._tops: dict[int, int] = {}

    def read(self, connection: Connection, study_id: int, target: tuple[Any, ...] | None = None) -> Study:
        """The study, as it stands now; ``target`` is its hash and targets, if they were read already."""
        target = tuple(statements.TARGET.run(connection, asked=study_id).one()) if target is None else target
        known = self._known.get(study_id)
        if known is None or known[0] != target:
            found = tables.study.c.id == study_id
            known = target, rows.study_of(connection.execute(select(tables.study).where(found)).one())
            self._known[study_id] = known
        return known[1]

    def note_top(self, trial_id: int, study: Study) -> None:
        """Remembers the highest rung of ``study``, which never changes, for the trial."""
        self._tops[trial_id] = study.fidelity.top

    def top_rung(self, connection: Connection, trial_id: int) -> int:
        """The highest rung of the trial's study; 0 if there is no such trial."""
        if trial_id not in self._tops:
            study_id = statements.STUDY_OF.run(connection, held=trial_id).scalar()
            if study_id is None:
                return 0
            self.note_top(trial_id, self.read(connection, study_id))
        return self._tops[trial_id]


def study_row(connection: Connection, name: str | None) -> Row[Any]:
    """Id, name, driver and next number of the study; without a name the latest.

    Raises:
        NotFoundError: If there is none.
    """
    columns = tables.study.c["id", "name", "driver", "next_number"]
    query: Select[Any] = select(*columns).order_by(tables.study.c.id.desc()).limit(1)
    row = connection.execute(query if name is None else query.where(tables.study.c.name == name)).one_or_none()
    if row is not None:
        return row
    names = list(connection.scalars(select(tables.study.c.name).order_by(tables.study.c.id.desc()).limit(5)))
    if not names:
        raise NotFoundError("the database holds no study: start one with 'autopeft search'")
    raise NotFoundError(f"no study {name!r}; the latest are: {', '.join(names)}")


def trial_row(connection: Connection, study: str, number: int, *, lock: bool = False) -> Row[Any]:
    """The row of the trial; with ``lock`` nobody else changes it until the transaction ends.

    Raises:
        NotFoundError: If the study or the trial does not exist.
    """
    found, trial = study_row(connection, study), tables.trial
    query = select(trial).where(trial.c.study_id == found.id, trial.c.number == number)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise _no_trial(found, number)
    return row


def _no_trial(study: Row[Any], number: int) -> NotFoundError:
    known = f"it has 0 to {study.next_number - 1}" if study.next_number else "it has none yet"
    return NotFoundError(f"no trial {number} in study {study.name!r}: {known}")


def _trials(study_id: int) -> Select[Any]:
    trial, measurement = tables.trial, tables.measurement
    highest = and_(measurement.c.trial_id == trial.c.id, measurement.c.rung == trial.c.rung - 1)
    return (
        select(trial, measurement.c["values"].label("measured"))
        .select_from(trial.outerjoin(measurement, highest))
        .where(trial.c.study_id == study_id)
    )


def _worked(study_id: int) -> Select[Any]:
    """Seconds that each attempt adds to what its worker had worked until then: of those that have ended, and of all."""
    attempt, trial = tables.attempt, tables.trial
    end = func.coalesce(attempt.c.finished_at, Now())
    before = func.max(end).over(
        partition_by=attempt.c.worker, order_by=[attempt.c.started_at, attempt.c.id], rows=(None, -1)
    )
    each = (
        select(attempt.c.started_at, attempt.c.finished_at, end.label("end"), before.label("before"))
        .select_from(attempt.join(trial, trial.c.id == attempt.c.trial_id))
        .where(trial.c.study_id == study_id)
        .subquery()
    )
    begun = case((each.c.before > each.c.started_at, each.c.before), else_=each.c.started_at)
    added = case((each.c.end > begun, each.c.end - begun), else_=0.0)
    running = each.c.finished_at.is_(None)
    return select(func.sum(case((running, 0.0), else_=added)), func.sum(case((running, added), else_=0.0)))


def _lower(connection: Connection, study_id: int, trial_id: int | None = None) -> rows.Lower:
    trial, measurement = tables.trial, tables.measurement
    query = (
        select(measurement.c.trial_id, measurement.c.rung, measurement.c["values"].label("measured"))
        .select_from(measurement.join(trial, trial.c.id == measurement.c.trial_id))
        .where(trial.c.study_id == study_id, measurement.c.rung < trial.c.rung - 1)
        .order_by(measurement.c.trial_id, measurement.c.rung)
    )
    found: rows.Lower = {}
    for row in connection.execute(query if trial_id is None else query.where(trial.c.id == trial_id)):
        found.setdefault(row.trial_id, {})[row.rung] = row.measured
    return found
