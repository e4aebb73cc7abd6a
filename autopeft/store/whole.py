"""The verbs of a worker as one statement each, for a server: a lease, a beat or a report is one round trip.

Built from the very statements that SQLite runs one after the other (the same claim, the same fence), as parts (CTE) of
one: all of it happens or nothing, so no transaction needs to be begun and ended around it. Measured on one busy
machine, a lease with its report took 21 round trips before and takes two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    JSON,
    Connection,
    Executable,
    Integer,
    Row,
    String,
    bindparam,
    cast,
    func,
    insert,
    literal_column,
    select,
    true,
)
from sqlalchemy.dialects import postgresql

from autopeft.store import statements
from autopeft.store.database import Now
from autopeft.store.log import EventKind
from autopeft.store.statements import Prepared
from autopeft.store.tables import attempt, checkpoint, event, measurement
from autopeft.study import Measurement, TrialState

_SERVER = "postgresql"


def serves(connection: Connection) -> bool:
    """Whether the statements of this module can be run on ``connection``."""
    return connection.dialect.name == _SERVER


def lease(connection: Connection, who: Mapping[str, Any]) -> Row[Any] | None:
    """As ``autopeft.store.lease.claim``, with the parameters of the claim."""
    taken: Row[Any] | None = LEASE["of_study" in who].run(connection, **_asking(who)).one_or_none()
    return taken


def report(
    connection: Connection,
    trial_id: int,
    number: int,
    measured: Measurement,
    environment: Mapping[str, str] | None,
    state: TrialState,
) -> bool:
    """Whether attempt ``number`` held the trial, which then is reported as by ``autopeft.store.lease.report``."""
    done = REPORT[state].run(connection, **_telling(trial_id, number, measured, environment, state))
    return done.one_or_none() is not None


def report_and_lease(
    connection: Connection,
    trial_id: int,
    number: int,
    measured: Measurement,
    environment: Mapping[str, str] | None,
    state: TrialState,
    who: Mapping[str, Any],
) -> Row[Any] | None:
    """As ``report``, then ``lease``: a row if attempt ``number`` held the trial, its ``id`` null if nothing is due."""
    told = _telling(trial_id, number, measured, environment, state)
    both: Row[Any] | None = BOTH[state, "of_study" in who].run(connection, **told, **_asking(who)).one_or_none()
    return both


def _asking(who: Mapping[str, Any]) -> dict[str, Any]:
    return {**who, "seen": who["worker"], "leased": statements.text_of({"worker": who["worker"]})}


def _telling(
    trial_id: int, number: int, measured: Measurement, environment: Mapping[str, str] | None, state: TrialState
) -> dict[str, Any]:
    said: dict[str, Any] = {"state": state.value}
    if state is TrialState.PAUSED or measured.rung:
        said["rung"] = measured.rung
    key = {"held": trial_id, "fence": number, "finished": measured.rung}
    texts = {"found": statements.text_of(dict(environment or {})), "detail": statements.text_of(said)}
    files = {"path": measured.artifact, "sha256": measured.sha256}
    return {**key, **texts, **files, **statements.texts_of(measured)}


def _text(name: str) -> Any:
    return bindparam(name, type_=String())


def _number(name: str) -> Any:
    return bindparam(name, type_=Integer())


def _json(name: str) -> Any:
    return cast(_text(name), JSON)


def _joined(one: Any, other: Any) -> Any:
    """Two JSON objects as one."""
    return cast(cast(one, postgresql.JSONB).op("||")(cast(other, postgresql.JSONB)), JSON)


def _event(kind: EventKind, of: Any, number: Any, detail: Any, *beside: Any) -> Any:
    columns = [of.c.study_id, of.c.id, number, literal_column(f"'{kind.value}'"), detail, Now()]
    chosen = select(*columns).select_from(of)
    for other in beside:
        chosen = chosen.join(other, true())
    named = ["study_id", "trial_id", "attempt", "kind", "detail", "at"]
    return insert(event).from_select(named, chosen).cte(f"{kind.value}_logged")


def _lease(claim: Prepared) -> Executable:
    taken, *parts = _lease_parts(claim.of(_SERVER))
    whole: Executable = select(*taken.c).add_cte(*parts)
    return whole


def _lease_parts(claim: Any) -> tuple[Any, ...]:
    """The trial that is taken, then what else is written of it."""
    taken = claim.cte("taken")
    seen = statements.WORKER_SEEN.of(_SERVER).where(select(taken.c.id).exists()).cte("known")
    environment = func.coalesce(select(seen.c.environment).scalar_subquery(), literal_column("'{}'::json"))
    begun = insert(attempt).from_select(
        ["trial_id", "number", "worker", "environment", "started_at"],
        select(taken.c.id, taken.c.attempt, _text("worker"), environment, Now()),
    )
    return taken, seen, begun.cte("begun"), _event(EventKind.LEASED, taken, taken.c.attempt, _json("leased"))


LEASE = {
    True: Prepared(lambda _: _lease(statements.CLAIM_OF_STUDY)),
    False: Prepared(lambda _: _lease(statements.CLAIM_ANY)),
}
"""By whether only the trials of one study are wanted."""


def _beat(_: str) -> Executable:
    renewed = statements.BEAT.of(_SERVER).cte("renewed")
    worker = select(renewed.c.owner).scalar_subquery()
    seen = statements.seen(worker).cte("known")
    whole: Executable = select(*renewed.c).add_cte(seen)
    return whole


BEAT = Prepared(_beat)


def _report(state: str) -> Executable:
    done, *parts = _report_parts(state)
    whole: Executable = select(done.c.id).add_cte(*parts)
    return whole


def _both(state: str, claim: Prepared) -> Executable:
    done, *told = _report_parts(state)
    taken, *parts = _lease_parts(claim.of(_SERVER).where(select(done.c.id).exists()))
    whole: Executable = select(done.c.id.label("done"), *taken.c).select_from(done.outerjoin(taken, true()))
    return whole.add_cte(*told, *parts)  # type: ignore[attr-defined, no-any-return]


def _report_parts(state: str) -> tuple[Any, ...]:
    """The trial that is finished, then what else is written of it."""
    done = statements.FINISH_RUNG[state].of(_SERVER).cte("done")
    ended = statements.END_ATTEMPT[state].of(_SERVER).where(select(done.c.id).exists())
    ended = ended.values(environment=_joined(attempt.c.environment, _text("found"))).cte("ended")
    key = {"trial_id": done.c.id, "rung": _number("finished"), "attempt": _number("fence")}
    json = {name: _json(name) for name in ("values", "curve", "details")}
    measured = _upsert(
        measurement, select(*key.values(), *json.values(), _text("correct"), Now()), [*key, *json, "correct"]
    )
    files = {"path": _text("path"), "sha256": _text("sha256")}
    kept = select(*key.values(), *files.values(), Now()).where(_text("path").is_not(None))
    detail = _joined(_text("detail"), func.json_build_object(literal_column("'worker'"), ended.c.worker))
    logged = _event(EventKind.REPORTED, done, _number("fence"), detail, ended)
    return done, measured.cte("measured"), _upsert(checkpoint, kept, [*key, *files]).cte("kept"), logged


def _upsert(table: Any, chosen: Any, columns: list[str]) -> Any:
    added = postgresql.insert(table).from_select([*columns, "created_at"], chosen)
    changes = {name: added.excluded[name] for name in (*columns, "created_at") if name not in ("trial_id", "rung")}
    return added.on_conflict_do_update(index_elements=["trial_id", "rung"], set_=changes)


REPORT = {
    state: Prepared(lambda _, state=state: _report(state))  # type: ignore[misc]
    for state in (TrialState.COMPLETE, TrialState.PAUSED)
}
"""By what the trial then is."""

BOTH = {
    (state, of_study): Prepared(lambda _, state=state, claim=claim: _both(state, claim))  # type: ignore[misc]
    for state in REPORT
    for of_study, claim in ((True, statements.CLAIM_OF_STUDY), (False, statements.CLAIM_ANY))
}
"""By what the trial then is, and by whether only the trials of one study are wanted."""
