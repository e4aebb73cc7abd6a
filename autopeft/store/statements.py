"""The statements that every trial costs, built and compiled once: lease, beat, report.

Building an SQLAlchemy statement costs more processor time than running it on SQLite (measured: 2.5 to 3.7 ms for a
lease with its report, of which the database took 0.2). A ``Prepared`` statement is compiled once for each dialect and
then handed to the driver as text; values of JSON columns are texts here, both ways. Rare verbs use SQLAlchemy's ways.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    CursorResult,
    Executable,
    Float,
    and_,
    bindparam,
    case,
    column,
    func,
    insert,
    literal,
    literal_column,
    null,
    or_,
    select,
    table,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import Table

from autopeft.store.blame import LONGEST_WAIT_SECONDS, OUT_OF_MEMORY
from autopeft.store.database import Now
from autopeft.store.tables import attempt, checkpoint, event, is_queued, is_running, measurement, study, trial, worker
from autopeft.study import Measurement

_version = table("alembic_version", column("version_num"))

TARGET_COLUMNS = ("sha256", "trials", "hours", "device_hours")
"""What a study that was read before is read anew for when it changes: its hash, and the targets that can be set."""

_INSERTS: dict[str, Callable[[Table], Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


class Prepared:
    """A statement that is compiled once for each dialect.

    Args:
        build: The statement for a dialect's name.
    """

    def __init__(self, build: Callable[[str], Executable]) -> None:
        self._build = build
        self._known: dict[str, tuple[str, dict[str, Any], list[str] | None]] = {}

    def run(self, connection: Connection, **values: Any) -> CursorResult[Any]:
        """What the statement gives for ``values``."""
        name = connection.dialect.name
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = self._compile(connection)
        text, fixed, positions = known
        bound = fixed | values
        if positions is None:
            return connection.exec_driver_sql(text, bound)
        return connection.exec_driver_sql(text, tuple([bound[name] for name in positions]))

    def of(self, dialect: str) -> Any:
        """The statement itself, to be a part of another."""
        return self._build(dialect)

    def _compile(self, connection: Connection) -> tuple[str, dict[str, Any], list[str] | None]:
        compiled: Any = self._build(connection.dialect.name).compile(dialect=connection.dialect)  # type: ignore[attr-defined]
        fixed = {name: value for name, value in compiled.params.items() if value is not None}
        return str(compiled), fixed, compiled.positiontup


def text_of(value: Any) -> str:
    """The JSON text of plain values, for a JSON column."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def values_of(value: Any) -> Any:
    """What a JSON column holds: SQLite's driver gives its text, PostgreSQL's the values."""
    return json.loads(value) if isinstance(value, str) else value


def texts_of(measured: Measurement) -> dict[str, str]:
    """The columns of a measurement beside its keys."""
    return {
        "values": text_of(dict(measured.values)),
        "curve": text_of([list(point) for point in measured.curve]),
        "correct": "".join(map(str, measured.correct)),
        "details": text_of(dict(measured.details)),
    }


def held_by(trial_id: ColumnElement[int] | int, number: ColumnElement[int] | int) -> ColumnElement[bool]:
    """The fence: true for the trial while attempt ``number`` of it holds the lease."""
    return and_(trial.c.id == trial_id, trial.c.attempt == number, is_running)


def _seconds(name: str) -> ColumnElement[float]:
    return bindparam(name, type_=Float(53))


def is_due() -> ColumnElement[bool]:
    """True for a trial whose wait is over.

    A wait that is longer than any was begun before somebody set the database's clock back.
    """
    return or_(trial.c.not_before <= Now(), trial.c.not_before > Now() + literal(LONGEST_WAIT_SECONDS, Float(53)))


def _of_this_revision() -> Any:
    return select(_version.c.version_num).where(_version.c.version_num == bindparam("revision"))


def _claim(of_study: bool) -> Executable:
    of_this_revision = _of_this_revision()
    due = select(trial.c.id).where(is_queued, is_due(), of_this_revision.exists())
    if of_study:
        due = due.where(trial.c.study_id == bindparam("of_study"))
    first = due.order_by(trial.c.priority.desc(), trial.c.study_id, trial.c.number).limit(literal(1))
    return _taking(first.with_for_update(skip_locked=True).scalar_subquery())


def _claim_this() -> Executable:
    return _taking(select(bindparam("this", type_=BigInteger())).where(_of_this_revision().exists()).scalar_subquery())


def _taking(chosen: Any) -> Executable:
    taken = {"state": "RUNNING", "owner": bindparam("worker"), "cancel_requested": False}
    return (
        update(trial)
        .where(trial.c.id == chosen, is_queued)
        .values(attempt=trial.c.attempt + 1, expires_at=Now() + _seconds("lease"), **taken)
        .returning(*_ordered())
    )


def _ordered() -> list[ColumnElement[Any]]:
    """What an order is made of."""
    columns = trial.c["id", "study_id", "number", "attempt", "configuration", "digest", "replicate", "rung", "origin"]
    return [*columns, *(_of_its_study(name) for name in TARGET_COLUMNS)]


def _of_its_study(name: str) -> ColumnElement[Any]:
    column = select(study.c[name]).where(study.c.id == trial.c.study_id).correlate(trial)
    return column.scalar_subquery().label(name)


CLAIM_ANY = Prepared(lambda _: _claim(of_study=False))
CLAIM_OF_STUDY = Prepared(lambda _: _claim(of_study=True))
CLAIM_THIS = Prepared(lambda _: _claim_this())


def _held() -> Executable:
    mine = select(trial.c.id).where(is_running, trial.c.owner == bindparam("worker"))
    latest = mine.order_by(trial.c.expires_at.desc()).limit(literal(1)).scalar_subquery()
    renewed = update(trial).where(trial.c.id == latest, is_running, trial.c.owner == bindparam("worker"))
    return renewed.values(expires_at=Now() + _seconds("lease")).returning(*_ordered())


HELD = Prepared(lambda _: _held())
"""The trial that a worker holds, its lease renewed."""


def seen(name: ColumnElement[str]) -> Any:
    """Notes that the worker of that name is alive, and gives its environment."""
    return update(worker).where(worker.c.name == name).values(seen_at=Now()).returning(worker.c.environment)


WORKER_SEEN = Prepared(lambda _: seen(bindparam("seen")))

BEGIN_ATTEMPT = Prepared(
    lambda _: insert(attempt).values(
        **{name: bindparam(name) for name in ("trial_id", "number", "worker", "environment")}, started_at=Now()
    )
)

EVENT = Prepared(
    lambda _: insert(event).values(
        **{name: bindparam(name) for name in ("study_id", "trial_id", "attempt", "kind", "detail")}, at=Now()
    )
)

BEAT = Prepared(
    lambda _: (
        update(trial)
        .where(held_by(bindparam("held"), bindparam("fence")))
        .values(expires_at=Now() + _seconds("lease"))
        .returning(trial.c.cancel_requested, trial.c.owner)
    )
)


def _finish_rung(state: str) -> Executable:
    """Moves the trial to ``state``; one that was to be cancelled is, unless it is complete: what is there is kept."""
    ends: str | ColumnElement[str] = state
    finished_at: ColumnElement[Any] = Now() if state == "COMPLETE" else null()
    if state == "PAUSED":
        ends = case((trial.c.cancel_requested, literal("CANCELLED")), else_=literal(state))
        finished_at = case((trial.c.cancel_requested, Now()), else_=null())
    return (
        update(trial)
        .where(held_by(bindparam("held"), bindparam("fence")), trial.c.rung == bindparam("finished"))
        .values(
            state=ends,
            owner=null(),
            expires_at=null(),
            cancel_requested=False,
            rung=trial.c.rung + 1,
            lost=0,
            error=null(),
            finished_at=finished_at,
        )
        .returning(*trial.c["id", "study_id"])
    )


def _end_attempt(outcome: str) -> Executable:
    return (
        update(attempt)
        .where(attempt.c.trial_id == bindparam("held"), attempt.c.number == bindparam("fence"))
        .values(finished_at=Now(), outcome=outcome)
        .returning(attempt.c.worker, attempt.c.environment)
    )


FINISH_RUNG = {state: Prepared(lambda _, state=state: _finish_rung(state)) for state in ("COMPLETE", "PAUSED")}  # type: ignore[misc]
END_ATTEMPT = {state: Prepared(lambda _, state=state: _end_attempt(state)) for state in ("COMPLETE", "PAUSED")}  # type: ignore[misc]

ENVIRONMENT = Prepared(
    lambda _: (
        update(attempt)
        .where(attempt.c.trial_id == bindparam("held"), attempt.c.number == bindparam("fence"))
        .values(environment=bindparam("found"))
    )
)


def _upsert(table: Table, dialect: str, columns: list[str]) -> Executable:
    added: Any = _INSERTS[dialect](table).values(**{name: bindparam(name) for name in columns}, created_at=Now())
    changes = {name: added.excluded[name] for name in (*columns, "created_at") if name not in ("trial_id", "rung")}
    upsert: Executable = added.on_conflict_do_update(index_elements=["trial_id", "rung"], set_=changes)
    return upsert


_MEASURED = ("values", "curve", "correct", "details")
MEASUREMENT = Prepared(lambda dialect: _upsert(measurement, dialect, ["trial_id", "rung", "attempt", *_MEASURED]))
CHECKPOINT = Prepared(lambda dialect: _upsert(checkpoint, dialect, ["trial_id", "rung", "attempt", "path", "sha256"]))

CHECKPOINTS = Prepared(
    lambda _: (
        select(*checkpoint.c["rung", "path", "sha256"])
        .where(checkpoint.c.trial_id == bindparam("taken"), checkpoint.c.sha256.is_not(None))
        .order_by(checkpoint.c.rung.desc())
    )
)
MEMORY_FAILURES = Prepared(
    lambda _: select(func.count()).where(
        attempt.c.trial_id == bindparam("taken"),
        or_(*(attempt.c.failure == literal_column(f"'{kind}'") for kind in OUT_OF_MEMORY)),
    )
)

STUDY_OF = Prepared(lambda _: select(trial.c.study_id).where(trial.c.id == bindparam("held")))
TARGET = Prepared(lambda _: select(*study.c[TARGET_COLUMNS]).where(study.c.id == bindparam("asked")))
