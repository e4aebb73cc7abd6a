"""The one door to the record: every change to a study or a trial goes through here.

What may change when is in ``lease`` (workers), ``driving`` (the driver) and ``blame`` (what a loss means); this class
puts each verb in one transaction. It retries nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from autopeft.errors import ConfigurationError, StoreError
from autopeft.probe import Probe
from autopeft.store import (
    again,
    beside,
    cancelling,
    driving,
    hosts,
    lease,
    log,
    migrate,
    probes,
    rows,
    statements,
    tables,
)
from autopeft.store.blame import Failure
from autopeft.store.database import Database, Now
from autopeft.store.log import EventKind
from autopeft.store.reader import Reader, study_row, trial_row
from autopeft.store.tables import Outcome, StudyState
from autopeft.study import Checkpoint, FrontRecord, Measurement, Order, Proposal, Study, TrialState
from search_spaces.configuration import Configuration

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Store(Reader):
    """The record of all studies, for drivers and workers.

    The promise:

    * Each method is one transaction: all of it is in the record, or nothing.
    * A queued trial is leased to one worker only. While it runs, only the holder of the latest attempt changes it;
      whoever comes with an older attempt gets ``LeaseLostError`` and has changed nothing.
    * A report that is sent twice by its attempt counts once, so a lost reply may be answered by sending again.
    * Only the database's clock decides whether a lease has run out.
    * Values that come back are frozen; they are what was in the record at one moment.

    One store may be used by several threads. Every method raises ``StoreError`` if the database is locked for longer
    than the timeout, read-only, full or away, and ``NotFoundError`` for a study or trial that does not exist.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._ids: dict[str, int] = {}
        self._revision = migrate.head_revision()

    @classmethod
    def open(cls, url: str, *, create: bool = False) -> Self:
        """The store at ``url``; with ``create`` a missing or empty database is made.

        Raises:
            NotFoundError: If the SQLite file does not exist and ``create`` is false.
            SchemaError: If the database is older or newer than this version.
            StoreError: If it cannot be opened.
        """
        database = Database(url)
        with database.closed_unless_sound():
            if not create:
                database.require_file()
            migrate.make_current(database, create)
        return cls(database)

    def create_study(self, study: Study) -> None:
        """Adds the study; ``StoreError`` if its name is taken, ``ConfigurationError`` if it cannot be a folder's."""
        if not _NAME.fullmatch(study.name) or not study.name.strip("."):
            raise ConfigurationError(f"study name {study.name!r}: expected 1 to 128 of A-Z a-z 0-9 . _ -")
        spec = study.to_json()
        row = {
            "name": study.name,
            "state": StudyState.OPEN,
            "spec": spec,
            "sha256": hashlib.sha256(json.dumps(spec, sort_keys=True, allow_nan=False).encode()).hexdigest(),
            "trials": study.trials,
            "hours": study.hours,
            "device_hours": study.device_hours,
            "next_number": 0,
            "driver_epoch": 0,
        }
        with self._database.writing() as connection:
            try:
                added = insert(tables.study).values(created_at=Now(), **row).returning(tables.study.c.id)
                study_id = connection.execute(added).scalar_one()
            except IntegrityError as error:
                raise StoreError(f"study {study.name!r} exists already: resume it, or give another name") from error
            log.append(connection, EventKind.CREATED, study_id, trials=study.trials, hours=study.hours)

    def record_probe(self, probe: Probe) -> None:
        """Writes a probe whole; ``StoreError`` if its name is taken, ``ConfigurationError`` if it is no name."""
        with self._database.writing() as connection:
            probes.add(connection, probe)

    def set_target(self, study: str, trials: int, hours: float | None, device_hours: float | None = None) -> None:
        """Sets how many proposals, hours, and hours of device time the study is to take."""
        with self._database.writing() as connection:
            found = study_row(connection, study)
            changed = update(tables.study).where(tables.study.c.id == found.id)
            connection.execute(changed.values(trials=trials, hours=hours, device_hours=device_hours))
            log.append(
                connection, EventKind.TARGET_SET, found.id, trials=trials, hours=hours, device_hours=device_hours
            )

    def acquire_driver(self, study: str, owner: str, lease_seconds: float = 30) -> int:
        """The epoch under which ``owner`` drives the study; ``StoreError`` if another live driver does."""
        with self._database.writing() as connection:
            return driving.acquire(connection, study, owner, lease_seconds)

    def renew_driver(self, study: str, epoch: int, lease_seconds: float = 30) -> None:
        """Keeps the study.

        Raises:
            LeaseLostError: If the epoch is no longer current.
            SchemaError: If somebody has upgraded the database to a revision that this process does not know.
        """
        with self._database.writing() as connection:
            migrate.require_same(connection, str(self._database))
            driving.renew(connection, study, epoch, lease_seconds)

    def release_driver(self, study: str, epoch: int) -> None:
        """Frees the study for the next driver; nothing if it has one already."""
        with self._database.writing() as connection:
            driving.release(connection, study, epoch)

    def enqueue(self, study: str, epoch: int, proposals: Sequence[Proposal], lease_seconds: float = 30) -> list[int]:
        """Numbers of the queued proposals; one whose (digest, replicate) the study has is skipped.

        Renews the driver's lease; ``LeaseLostError`` if the epoch is no longer current or the study was stopped.
        """
        with self._database.writing() as connection:
            return driving.enqueue(connection, driving.renew(connection, study, epoch, lease_seconds), proposals)

    def promote(self, study: str, epoch: int, numbers: Sequence[int], lease_seconds: float = 30) -> list[int]:
        """Numbers of those trials that were PAUSED, now QUEUED for their next rung.

        Renews the driver's lease; ``LeaseLostError`` if the epoch is no longer current or the study was stopped.
        """
        with self._database.writing() as connection:
            return driving.promote(connection, driving.renew(connection, study, epoch, lease_seconds), numbers)

    def forget_checkpoints(
        self, study: str, epoch: int, *, paused: bool = False, lease_seconds: float = 30
    ) -> dict[int, list[str]]:
        """Artifacts that remain, by number of each trial that needs no checkpoint any more: its files may go.

        A trial needs none once it is COMPLETE (the artifact of its top rung stays), DIVERGED or CANCELLED; with
        ``paused`` those that were not promoted count too, which is for the end of a study. Renews the driver's lease;
        ``LeaseLostError`` if the epoch is no longer current.
        """
        with self._database.writing() as connection:
            return driving.forget_checkpoints(
                connection, driving.renew(connection, study, epoch, lease_seconds), paused=paused
            )

    def register_worker(self, worker: str, host: str, device: str, pid: int, environment: Mapping[str, str]) -> None:
        """Enters the worker, or enters it anew; ``ConfigurationError`` if SQLite is in use on another host."""
        row = {"name": worker, "host": host, "device": device, "pid": pid, "environment": dict(environment)}
        with self._database.writing() as connection:
            hosts.require_one_host(connection, host)
            connection.execute(delete(tables.worker).where(tables.worker.c.name == worker))
            connection.execute(insert(tables.worker).values(started_at=Now(), seen_at=Now(), **row))

    def worker_seen(self, worker: str) -> None:
        """Notes that the worker is alive; leasing and beating do so as well."""
        with self._database.writing() as connection:
            statements.WORKER_SEEN.run(connection, seen=worker)

    def lease(self, worker: str, study: str | None, lease_seconds: float = 60) -> Order | None:
        """The next order, of any study if none is named; None if nothing is due.

        Raises:
            SchemaError: If somebody has upgraded the database to a revision that this process does not know.
        """
        with self._database.at_once() as connection:
            study_id = None if study is None else self._id_of(connection, study)
            taken = lease.claim(connection, worker, study_id, lease_seconds, self._revision)
            if taken is None:
                migrate.require_same(connection, str(self._database))
                return None
            found = self._with_it(connection, taken)
        return self._order(taken, *found)

    def lease_beside(
        self,
        order: Order,
        count: int,
        worker: str,
        fits: Callable[[Configuration], bool],
        lease_seconds: float = 60,
    ) -> list[Order]:
        """At most ``count`` more orders for the holder of ``order``: of its study, replicate and rung, in their order.

        None where ``order`` was lost or has failed before, and none that was: such a trial is to run alone. What
        ``fits`` is false for stays in the queue.

        Raises:
            LeaseLostError: If the attempt no longer holds the trial.
        """
        with self._database.writing() as connection:
            held = lease.hold(connection, order.trial_id, order.attempt, Outcome.COMPLETE)
            who = lease.asking(worker, None, lease_seconds, self._revision)
            taken = [] if held is None else beside.claim(connection, held, count, who, fits)
            found = [(row, self._with_it(connection, row)) for row in taken]
        return [self._order(row, *known) for row, known in found]

    def _with_it(self, connection: Connection, taken: Row[Any]) -> tuple[Study, tuple[Checkpoint, ...], int]:
        """The study of a trial that was taken, and its history."""
        target = taken.sha256, taken.trials, taken.hours, taken.device_hours
        study = self._studies.read(connection, taken.study_id, target)
        self._studies.note_top(taken.id, study)
        return study, *lease.history(connection, taken)

    def _order(self, taken: Row[Any], study: Study, checkpoints: tuple[Checkpoint, ...], failures: int) -> Order:
        return rows.order_of(taken, study, self._configurations, checkpoints, failures)

    def _id_of(self, connection: Connection, study: str) -> int:
        if study not in self._ids:
            self._ids[study] = study_row(connection, study).id
        return self._ids[study]

    def beat(self, trial_id: int, attempt: int, lease_seconds: float = 60) -> bool:
        """Renews the lease; whether a cancel was asked for. ``LeaseLostError`` if the attempt no longer holds it."""
        with self._database.at_once() as connection:
            return lease.beat(connection, trial_id, attempt, lease_seconds)

    def report(
        self, trial_id: int, attempt: int, measurement: Measurement, environment: Mapping[str, str] | None = None
    ) -> None:
        """Records the measurement; the trial is COMPLETE, or PAUSED if there are rungs above the one it finished.

        Args:
            trial_id: As in the order.
            attempt: As in the order.
            measurement: What came of it.
            environment: What it rests on beside what the worker registered with: hashes of backbone and data.

        Raises:
            LeaseLostError: If the attempt no longer holds the trial.
            StoreError: If the measurement is of another rung than was ordered.
        """
        with self._database.at_once() as connection:
            below_top = measurement.rung < self._studies.top_rung(connection, trial_id)
            state = TrialState.PAUSED if below_top else TrialState.COMPLETE
            lease.report(connection, trial_id, attempt, measurement, environment, state)

    def report_and_lease(
        self,
        trial_id: int,
        attempt: int,
        measurement: Measurement,
        environment: Mapping[str, str] | None,
        worker: str,
        study: str | None,
        lease_seconds: float = 60,
    ) -> Order | None:
        """``report``, then ``lease``, in one transaction: both happen or neither; None if nothing is due.

        Where the reply was lost, sending again gives the order that it held.

        Raises:
            LeaseLostError: As ``report``.
            StoreError: As ``report``.
        """
        with self._database.at_once() as connection:
            below_top = measurement.rung < self._studies.top_rung(connection, trial_id)
            state = TrialState.PAUSED if below_top else TrialState.COMPLETE
            study_id = None if study is None else self._id_of(connection, study)
            who = lease.asking(worker, study_id, lease_seconds, self._revision)
            taken = lease.report_and_claim(connection, trial_id, attempt, measurement, environment, state, who)
            if taken is None:
                return None
            found = self._with_it(connection, taken)
        return self._order(taken, *found)

    def report_diverged(self, trial_id: int, attempt: int, reason: str) -> None:
        """The trial is DIVERGED, a result; ``LeaseLostError`` if the attempt no longer holds it."""
        with self._database.writing() as connection:
            held = lease.hold(connection, trial_id, attempt, Outcome.DIVERGED)
            if held is not None:
                text: dict[str, Any] = {"reason": reason, "failure": Failure.DIVERGED, "error": reason}
                lease.finish(connection, held, Outcome.DIVERGED, TrialState.DIVERGED, **text)

    def report_failure(
        self, trial_id: int, attempt: int, reason: str, traceback: str, failure: str = Failure.EXCEPTION
    ) -> TrialState:
        """QUEUED again after a wait, or FAILED; ``LeaseLostError`` if the attempt no longer holds it."""
        with self._database.writing() as connection:
            held = lease.hold(connection, trial_id, attempt, Outcome.FAILED)
            if held is None:
                state = connection.scalar(select(tables.trial.c.state).where(tables.trial.c.id == trial_id))
                return TrialState.FAILED if state == TrialState.FAILED else TrialState.QUEUED
            return lease.fail(connection, held, reason, traceback, Failure(failure))

    def report_lost(self, trial_id: int, attempt: int, reason: str, last_words: str = "") -> TrialState:
        """As a lease that runs out, said by the worker whose training process died; nothing if it was reaped.

        Raises:
            LeaseLostError: If the attempt ended in another way.
        """
        with self._database.writing() as connection:
            held = lease.hold(connection, trial_id, attempt, Outcome.LOST)
            if held is None:
                return TrialState.QUEUED
            return lease.lose(connection, held, reason, last_words, explained=True)

    def hand_back(
        self,
        trial_id: int,
        attempt: int,
        reason: str | None = None,
        failure: str = Failure.PREEMPTED,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        """QUEUED again without blame, or CANCELLED if that was asked; ``LeaseLostError`` if no longer held.

        Whoever takes the trial next goes on from ``checkpoint``.
        """
        with self._database.writing() as connection:
            held = lease.hold(connection, trial_id, attempt, Outcome.PREEMPTED)
            if held is None:
                return
            if checkpoint is not None:
                lease.keep_checkpoint(connection, held, checkpoint)
            state = TrialState.CANCELLED if held.cancel_requested else TrialState.QUEUED
            text: dict[str, Any] = {"reason": reason, "failure": Failure(failure)}
            lease.finish(connection, held, Outcome.PREEMPTED, state, preempted=held.preempted + 1, **text)

    def requeue(self, study: str, number: int) -> TrialState:
        """Puts a trial back into the queue by hand, with clean counters; the state that it had comes back.

        Whoever runs it loses it. ``StoreError`` if it is COMPLETE: a measurement is never thrown away.
        """
        with self._database.writing() as connection:
            row = trial_row(connection, study, number, lock=True)
            if row.state == TrialState.COMPLETE:
                raise StoreError(f"trial {number} of study {study!r} is COMPLETE: its measurement stays; queue nothing")
            again.requeue(connection, row)
            return TrialState(row.state)

    def retry(self, study: str) -> list[int]:
        """Numbers of the trials that had FAILED or were QUARANTINED, now queued again with clean counters."""
        with self._database.writing() as connection:
            return again.retry(connection, study_row(connection, study).id)

    def reap(self, study: str | None = None) -> int:
        """How many trials had a lease that ran out; each is QUEUED again, or QUARANTINED if it kills workers."""
        with self._database.reading() as connection:
            query = select(tables.trial.c.id).where(tables.is_running, tables.trial.c.expires_at <= Now()).limit(1)
            if connection.scalar(query) is None:
                return 0
        with self._database.writing() as connection:
            return lease.reap(connection, None if study is None else study_row(connection, study).id)

    def cancel(self, study: str, number: int) -> TrialState:
        """The trial's state: CANCELLED at once if it waited; a running one is asked to stop; a final one stays."""
        with self._database.writing() as connection:
            return cancelling.cancel(connection, trial_row(connection, study, number, lock=True))

    def stop(self, study: str) -> int:
        """Ends the study: it takes no more trials until it has a new driver, and all that waits or runs is cancelled.

        What runs is asked to stop, as by ``cancel``. Returns how many trials that concerns.
        """
        with self._database.writing() as connection:
            return cancelling.stop(connection, study_row(connection, study).id)

    def record_front(self, study: str, record: FrontRecord) -> None:
        """Adds a front to the study's history."""
        with self._database.writing() as connection:
            found = study_row(connection, study)
            values = {"hypervolume": record.hypervolume, "completed": record.completed, "seconds": record.seconds}
            added = insert(tables.front).values(study_id=found.id, created_at=Now(), **values)
            front_id = connection.execute(added.returning(tables.front.c.id)).scalar_one()
            members = [
                {"front_id": front_id, "position": position, "trial_id": trial_row(connection, study, number).id}
                for position, number in enumerate(record.trials)
            ]
            if members:
                connection.execute(insert(tables.front_member), members)
            log.append(connection, EventKind.FRONT, found.id, hypervolume=record.hypervolume, members=len(members))
