"""Rows of the record as frozen values: what every read hands out. No queries here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from autopeft.store.blame import Failure
from autopeft.store.tables import Outcome
from autopeft.study import FrontRecord, Measurement, Order, Origin, Study, Trial, TrialState
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
    return Study.from_json({**row.spec, "trials": row.trials, "hours": row.hours})


def trial_of(row: Row[Any], configurations: Configurations) -> Trial:
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
    )


def order_of(row: Row[Any], study: Study, configurations: Configurations) -> Order:
    """The order for a trial that was just leased."""
    return Order(
        trial_id=row.id,
        attempt=row.attempt,
        number=row.number,
        study=study,
        configuration=configurations.read(row.digest, row.configuration),
        replicate=row.replicate,
        rung=row.rung,
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
