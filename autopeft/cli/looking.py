"""Commands that read: ``status``, ``trials``, ``front``, ``show``, and the dashboard; none of them writes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from autopeft.cli.console import Database, Json, StudyName, document
from autopeft.errors import BudgetError, ConfigurationError


def status(study: StudyName = None, db: Database = None, as_json: Json = False) -> None:
    """How far a study is, and what failed."""
    from autopeft.report import status_document, status_text
    from autopeft.settings import database_url
    from autopeft.standing import standing
    from autopeft.store.reader import Reader

    with Reader.open(database_url(db)) as reader:
        stored = reader.study(study)
        trials = reader.trials(stored.name)
        failures = reader.failures(stored.name)
    now = standing(stored, trials)
    if as_json:
        document(status_document(stored, trials, now) | {"failed_attempts": failures})
        return
    print(status_text(stored, trials, now))
    if failures:
        print(f"attempts {', '.join(f'{count} ended by {kind}' for kind, count in failures.items())}")


def trials(
    study: StudyName = None,
    state: Annotated[str | None, typer.Option("--state", help="Only trials in this state, e.g. COMPLETE.")] = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Every trial of a study."""
    from autopeft.report import trials_document, trials_text
    from autopeft.settings import database_url
    from autopeft.store.reader import Reader
    from autopeft.study import TrialState

    if state is not None and state.upper() not in TrialState.__members__:
        raise ConfigurationError(f"state {state!r}: expected one of {', '.join(TrialState)}")
    wanted = {TrialState(state.upper())} if state else None
    with Reader.open(database_url(db)) as reader:
        stored = reader.study(study)
        rows = reader.trials(stored.name, wanted)
    if as_json:
        document(trials_document(stored, rows))
    else:
        print(trials_text(stored, rows))


def front(
    study: StudyName = None,
    budget: Annotated[str | None, typer.Option("--budget", "-b", help="A tighter budget: 0.2%, 50k.")] = None,
    any_environment: Annotated[
        bool, typer.Option("--any-environment", help="Also where its trials ran under different versions or devices.")
    ] = False,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """The Pareto front of a study, with the control beside it."""
    from autopeft.budget import parse_budget
    from autopeft.report import front_document, front_text
    from autopeft.settings import database_url
    from autopeft.standing import standing
    from autopeft.store.reader import Reader

    with Reader.open(database_url(db)) as reader:
        stored = reader.study(study)
        rows = reader.trials(stored.name)
        environments = reader.environments(stored.name)
    limit = None
    if budget is not None:
        limit = min(parse_budget(budget, stored.backbone.parameter_count).parameters, stored.budget.parameters)
    now = standing(stored, rows, limit)
    if not any_environment:
        _require_one_environment(environments, [trial.number for trial in (*now.front, *now.control)])
    if as_json:
        document(front_document(stored, now) | ({"budget": limit} if limit else {}))
    else:
        print(front_text(stored, now))
    if not now.front:
        raise BudgetError(f"the front of {stored.name} is empty: no searched trial within the budget is complete")


def _require_one_environment(environments: Mapping[int, Mapping[str, str]], members: Sequence[int]) -> None:
    """Nothing, if all members were measured under the same versions, device, backbone and data.

    Raises:
        ConfigurationError: If not; the message names what differs.
    """
    found = [environments[number] for number in members if number in environments]
    keys = sorted({key for environment in found for key in environment})
    differing = {key: sorted({environment.get(key, "unknown") for environment in found}) for key in keys}
    mixed = [f"{key} {' and '.join(values)}" for key, values in differing.items() if len(values) > 1]
    if mixed:
        raise ConfigurationError(
            f"the front mixes environments ({'; '.join(mixed)}), so its values may not compare; "
            "--any-environment shows it all the same"
        )


def show(
    trial: Annotated[int, typer.Argument(help="Number of the trial.", min=0)],
    layers: Annotated[bool, typer.Option("--layers", help="The score sheet: rank per module and layer.")] = False,
    study: StudyName = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """One trial: state, values, configuration, error."""
    from autopeft.report import trial_row, trial_text
    from autopeft.score_sheet import text_sheet
    from autopeft.settings import database_url
    from autopeft.store.reader import Reader

    with Reader.open(database_url(db)) as reader:
        stored = reader.study(study)
        row = reader.trial(stored.name, trial)
    if as_json:
        document({"schema": "autopeft.trial/1", "study": stored.name, **trial_row(row)})
        return
    print(trial_text(stored, row, row.values))
    if layers:
        print()
        print(text_sheet(row.configuration, stored.backbone))


def dashboard(
    port: Annotated[int, typer.Option("--port", "-p", min=1, max=65535, help="Port on 127.0.0.1.")] = 8501,
    headless: Annotated[bool, typer.Option("--headless", help="Do not open a browser.")] = False,
    db: Database = None,
) -> None:
    """Show the studies in the browser, on this machine only."""
    from autopeft.settings import database_url

    environment = {**os.environ, "AUTOPEFT_DB": database_url(db)}
    command = [sys.executable, "-P", "-m", "dashboard", "--port", str(port)]
    sys.stdout.flush()
    os.execve(command[0], [*command, *(["--headless"] if headless else [])], environment)


def register(app: typer.Typer) -> None:
    """Adds the commands to ``app``."""
    for command in (status, front, trials, show, dashboard):
        app.command()(command)
