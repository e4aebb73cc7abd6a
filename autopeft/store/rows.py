"""Rows of the record as frozen values: what every read hands out. No queries here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from sqlalchemy import Row

from autopeft import proxy
from autopeft.objectives import exact
from autopeft.store.blame import Failure
from autopeft.store.tables import Outcome
from autopeft.study import Checkpoint, FrontRecord, Measurement, Order, Origin, Study, Trial, TrialState
from search_spaces.configuration import Configuration


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that takes orders.

    Attributes:
        name: Its id.
        host: Machine that it runs on.
        device: ``cpu`` or ``cuda:N``.
        pid: Process id on that host.
        environment: Versions and hashes that its results rest on.
        age_seconds: Since it registered.
        silent_seconds: Since it was last heard of.
    """

    name: str
    host: str
    device: str
    pid: int
    environment: Mapping[str, str]
    age_seconds: float
    silent_seconds: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one trial.

    Attributes:
        number: From 1; the fencing token.
        worker: Who held the lease.
        started_at: Seconds since 1970 by the database's clock.
        finished_at: The same, or None while it runs.
        outcome: How it ended, or None while it runs.
        reason: Why, in one line, or None.
        traceback: Of an exception, or None.
        environment: What it rests on: versions, device and, once complete, hashes of backbone and data.
        failure: Why it brought no measurement, or None.
    """

    number: int
    worker: str
    started_at: float
    finished_at: float | None
    outcome: Outcome | None
    reason: str | None
    traceback: str | None
    environment: Mapping[str, str]
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the audit log.

    Attributes:
        id: Grows; the highest of a study is its revision.
        kind: The verb, in the past tense.
        at: Seconds since 1970 by the database's clock.
        trial: Number of the trial, or None.
        attempt: Number of the attempt, or None.
        detail: What else is worth knowing.
    """

    id: int
    kind: str
    at: float
    trial: int | None
    attempt: int | None
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Summary:
    """A trial without its configuration: what a study's standing needs of thousands.

    Attributes:
        number: As of the trial.
        digest: As of the trial.
        replicate: As of the trial.
        state: As of the trial.
        origin: As of the trial.
        values: As of the trial.
        error: As of the trial.
    """

    number: int
    digest: str
    replicate: int
    state: TrialState
    origin: Origin
    values: Mapping[str, float]
    error: str | None

    def with_values(self, values: Mapping[str, float]) -> Self:
        """The same with other values."""
        return replace(self, values=values)


class Configurations:
    """Configurations by digest, so that a record which is read again and again is parsed once."""

    def __init__(self) -> None:
        self._known: dict[str, Configuration] = {}

    def read(self, digest: str, data: Mapping[str, Any] | str) -> Configuration:
        """The configuration in ``data``, values or their JSON text."""
        if digest not in self._known:
            self._known[digest] = Configuration.from_json(json.loads(data) if isinstance(data, str) else data)
        return self._known[digest]


def study_of(row: Row[Any]) -> Study:
    """The study, with the target as last set."""
    targets = {"trials": row.trials, "hours": row.hours, "device_hours": row.device_hours}
    return Study.from_json({**row.spec, **targets})


Lower = dict[int, dict[int, Mapping[str, float]]]
"""By trial and rung, the values at a rung below the highest that the trial finished."""


def trial_of(row: Row[Any], configurations: Configurations, lower: Lower) -> Trial:
    """The trial in a row that also has the ``values`` of its highest rung."""
    return Trial(
        number=row.number,
        configuration=configurations.read(row.digest, row.configuration),
        digest=row.digest,
        state=TrialState(row.state),
        origin=Origin(row.origin),
        label=row.label,
        replicate=row.replicate,
        rung=row.rung,
        attempt=row.attempt,
        owner=row.owner,
        values=row.measured or {},
        error=row.error,
        lower=lower.get(row.id, {}),
    )


def summary_of(row: Row[Any]) -> Summary:
    """The summary of a trial, in a row with its columns in order."""
    number, digest, replicate, state, origin, error, measured = tuple(row)
    return Summary(number, digest, replicate, TrialState(state), Origin(origin), measured or {}, error)


def order_of(
    row: Row[Any],
    study: Study,
    configurations: Configurations,
    checkpoints: tuple[Checkpoint, ...] = (),
    memory_failures: int = 0,
) -> Order:
    """The order for a trial that was just leased, with what its earlier attempts left."""
    plan = configurations.read(row.digest, row.configuration)
    on_sibling = proxy.stands_in(study, Origin(row.origin), plan)
    return Order(
        trial_id=row.id,
        attempt=row.attempt,
        number=row.number,
        study=proxy.on_proxy(study) if on_sibling else study,
        configuration=proxy.carried(study, plan) if on_sibling else plan,
        replicate=row.replicate,
        rung=row.rung,
        checkpoints=checkpoints,
        memory_failures=memory_failures,
        costs={name: cost(plan) for name, cost in exact(study).items()} if on_sibling else None,
    )


def measurement_of(row: Row[Any]) -> Measurement:
    """The measurement, with the pointer to its files."""
    return Measurement(
        rung=row.rung,
        values=row.measured,
        curve=tuple((step, loss) for step, loss in row.curve),
        correct=tuple(int(mark) for mark in row.correct),
        artifact=row.path,
        sha256=row.sha256,
        details=row.details,
    )


def attempt_of(row: Row[Any]) -> Attempt:
    """The attempt."""
    return Attempt(
        number=row.number,
        worker=row.worker,
        started_at=row.started_at,
        finished_at=row.finished_at,
        outcome=Outcome(row.outcome) if row.outcome else None,
        reason=row.reason,
        traceback=row.traceback,
        environment=row.environment,
        failure=Failure(row.failure) if row.failure else None,
    )


def worker_of(row: Row[Any]) -> Worker:
    """The worker, in a row that also has its ``age`` and how long it was ``silent``."""
    return Worker(row.name, row.host, row.device, row.pid, row.environment, row.age, row.silent)


def event_of(row: Row[Any]) -> Event:
    """The event, in a row that also has the ``number`` of its trial."""
    return Event(row.id, row.kind, row.at, row.number, row.attempt, row.detail)


def front_of(row: Row[Any], members: list[int]) -> FrontRecord:
    """The front with the numbers of its members."""
    return FrontRecord(tuple(members), row.hypervolume, row.completed, row.seconds)
