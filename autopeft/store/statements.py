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
    ColumnElement,
    Connection,
    CursorResult,
    Executable,
    Float,
    and_,
    bindparam,
    insert,
    literal,
    null,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import Table

from autopeft.store.database import Now
from autopeft.store.tables import attempt, checkpoint, event, is_queued, is_running, measurement, study, trial, worker

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


def held_by(trial_id: ColumnElement[int] | int, number: ColumnElement[int] | int) -> ColumnElement[bool]:
    """The fence: true for the trial while attempt ``number`` of it holds the lease."""
    return and_(trial.c.id == trial_id, trial.c.attempt == number, is_running)


def _seconds(name: str) -> ColumnElement[float]:
    return bindparam(name, type_=Float(53))


def _claim(of_study: bool) -> Executable:
    due = select(trial.c.id).where(is_queued, trial.c.not_before <= Now())
    if of_study:
        due = due.where(trial.c.study_id == bindparam("of_study"))
    first = due.order_by(trial.c.priority.desc(), trial.c.study_id, trial.c.number).limit(literal(1))
    taken = {"state": "RUNNING", "owner": bindparam("worker"), "cancel_requested": False}
    return (
        update(trial)
        .where(trial.c.id == first.with_for_update(skip_locked=True).scalar_subquery(), is_queued)
        .values(attempt=trial.c.attempt + 1, expires_at=Now() + _seconds("lease"), **taken)
        .returning(*trial.c["id", "study_id", "number", "attempt", "configuration", "digest", "replicate", "rung"])
    )


CLAIM_ANY = Prepared(lambda _: _claim(of_study=False))
CLAIM_OF_STUDY = Prepared(lambda _: _claim(of_study=True))

WORKER_SEEN = Prepared(
    lambda _: (
        update(worker).where(worker.c.name == bindparam("seen")).values(seen_at=Now()).returning(worker.c.environment)
    )
)

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

COMPLETE = Prepared(
    lambda _: (
        update(trial)
        .where(held_by(bindparam("held"), bindparam("fence")), trial.c.rung == bindparam("finished"))
        .values(
            state="COMPLETE",
            owner=null(),
            expires_at=null(),
            cancel_requested=False,
            rung=trial.c.rung + 1,
            lost=0,
            error=null(),
            finished_at=Now(),
        )
        .returning(*trial.c["id", "study_id"])
    )
)

END_COMPLETE = Prepared(
    lambda _: (
        update(attempt)
        .where(attempt.c.trial_id == bindparam("held"), attempt.c.number == bindparam("fence"))
        .values(finished_at=Now(), outcome="COMPLETE")
        .returning(attempt.c.worker, attempt.c.environment)
    )
)

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


MEASUREMENT = Prepared(
    lambda dialect: _upsert(measurement, dialect, ["trial_id", "rung", "attempt", "values", "curve", "correct"])
)
CHECKPOINT = Prepared(lambda dialect: _upsert(checkpoint, dialect, ["trial_id", "rung", "attempt", "path", "sha256"]))

STUDY_ID = Prepared(lambda _: select(study.c.id).where(study.c.name == bindparam("named")))
TARGET = Prepared(lambda _: select(*study.c["sha256", "trials", "hours"]).where(study.c.id == bindparam("asked")))
