"""What must hold in the record at any moment, whatever was killed: for ``autopeft db check`` and every fault test.

No row lost; a COMPLETE trial has each of its rungs once; at most one completed attempt; running ⇔ lease columns;
attempts contiguous; PAUSED below the top rung only; no checkpoint pointer to a missing file, or beyond where its trial
stands. A trial's rungs are those from its first on (the control's first is the top) to the last that it finished.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, select

from autopeft.fidelity import Fidelity
from autopeft.store import tables
from autopeft.store.tables import Outcome
from autopeft.study import TrialState


def violations(connection: Connection, artifacts: Path | None = None) -> list[str]:
    """One line for each thing that should not be; empty for a sound record.

    Args:
        connection: Reading one state of the record.
        artifacts: Root folder of artifacts; None leaves the files out.
    """
    found: list[str] = []
    for study in connection.execute(select(tables.study)).all():
        trials = connection.execute(select(tables.trial).where(tables.trial.c.study_id == study.id)).all()
        numbers = sorted(trial.number for trial in trials)
        if numbers != list(range(study.next_number)):
            found.append(
                f"study {study.name}: {len(numbers)} trials, expected the numbers 0 to {study.next_number - 1}"
            )
        top = Fidelity.from_json(study.spec["fidelity"]).top
        attempts = _by_trial(connection, tables.attempt, study.id, "number", "outcome")
        rungs = _by_trial(connection, tables.measurement, study.id, "rung", "attempt")
        pointers = _by_trial(connection, tables.checkpoint, study.id, "rung")
        for trial in trials:
            mine, measured = attempts.get(trial.id, []), rungs.get(trial.id, [])
            of_rungs = (*_of_rungs(trial, mine, measured), *_of_ladder(trial, top, pointers.get(trial.id, [])))
            wrong = (*_of_state(trial), *_of_attempts(trial, mine), *of_rungs)
            found += [f"study {study.name}, trial {trial.number}: {what}" for what in wrong]
    return found + ([] if artifacts is None else _missing(connection, artifacts))


def _by_trial(connection: Connection, table: Any, study_id: int, *columns: str) -> dict[int, list[Row[Any]]]:
    joined = table.join(tables.trial, tables.trial.c.id == table.c.trial_id)
    chosen = [table.c[name] for name in ("trial_id", *columns)]
    query = select(*chosen).select_from(joined).where(tables.trial.c.study_id == study_id)
    rows: dict[int, list[Row[Any]]] = {}
    for row in connection.execute(query.order_by(table.c.trial_id, table.c[columns[0]])):
        rows.setdefault(row.trial_id, []).append(row)
    return rows


def _of_state(trial: Row[Any]) -> Iterator[str]:
    is_running = trial.state == TrialState.RUNNING
    if not is_running == (trial.owner is not None) == (trial.expires_at is not None):
        yield f"is {trial.state} with the owner {trial.owner}"
    if TrialState(trial.state).is_final != (trial.finished_at is not None):
        yield f"is {trial.state}, finished at {trial.finished_at}"


def _of_attempts(trial: Row[Any], attempts: Sequence[Row[Any]]) -> Iterator[str]:
    numbers = [attempt.number for attempt in attempts]
    if numbers != list(range(1, trial.attempt + 1)):
        yield f"has the attempts {numbers}, expected 1 to {trial.attempt}"
    outcomes = [attempt.outcome for attempt in attempts]
    if outcomes.count(None) != (trial.state == TrialState.RUNNING):
        yield f"is {trial.state} with {outcomes.count(None)} open attempts"
    if outcomes.count(Outcome.COMPLETE) != (trial.state == TrialState.COMPLETE):
        yield f"is {trial.state} with {outcomes.count(Outcome.COMPLETE)} complete attempts"


def _of_rungs(trial: Row[Any], attempts: Sequence[Row[Any]], measured: Sequence[Row[Any]]) -> Iterator[str]:
    rungs = [row.rung for row in measured]
    if rungs != list(range(trial.rung - len(rungs), trial.rung)):
        yield f"has measured the rungs {rungs}, expected each once up to {trial.rung - 1}"
    if trial.state in (TrialState.COMPLETE, TrialState.PAUSED) and not rungs:
        yield f"is {trial.state} without a rung"
    ended = {attempt.number: attempt.outcome for attempt in attempts}
    for row in measured:
        if ended.get(row.attempt) not in (Outcome.COMPLETE, Outcome.PAUSED):
            yield f"has rung {row.rung} from attempt {row.attempt}, which ended as {ended.get(row.attempt)}"


def _of_ladder(trial: Row[Any], top: int, pointers: Sequence[Row[Any]]) -> Iterator[str]:
    """``trial.rung`` counts rungs finished: the top one is the last."""
    if trial.rung > top + (trial.state == TrialState.COMPLETE):
        yield f"is {trial.state} with {trial.rung} rungs behind it; its study has {top + 1}"
    if trial.state == TrialState.COMPLETE and trial.rung != top + 1:
        yield f"is COMPLETE after rung {trial.rung - 1}, expected {top}"
    ahead = [row.rung for row in pointers if row.rung > trial.rung]
    if ahead:
        yield f"has checkpoints of the rungs {ahead}, and stands at rung {trial.rung}"


def _missing(connection: Connection, artifacts: Path) -> list[str]:
    paths = connection.scalars(select(tables.checkpoint.c.path).order_by(tables.checkpoint.c.id))
    return [f"checkpoint {path} is not in {artifacts}" for path in paths if not (artifacts / path).exists()]
