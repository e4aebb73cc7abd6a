"""Commands that read: ``status``, ``trials``, ``front``, ``show``, and the dashboard; none of them writes."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from autopeft.cli.console import Database, Json, StudyName, document
from autopeft.errors import BudgetError


def status(study: StudyName = None, db: Database = None, as_json: Json = False) -> None:
    """How far a study is, and what failed."""
    from autopeft.report import status_document, status_text
    from autopeft.settings import database_url
    from autopeft.standing import standing
    from autopeft.store.reader import Reader

    with Reader.open(database_url(db)) as reader:
        stored = reader.study(study)
        trials = reader.trials(stored.name)
    now = standing(stored, trials)
    if as_json:
        document(status_document(stored, trials, now))
    else:
        print(status_text(stored, trials, now))


def trials(
    study: StudyName = None,
    state: Annotated[str | None, typer.Option("--state", help="Only trials in this state, e.g. COMPLETE.")] = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Every trial of a study."""
    from autopeft.errors import ConfigurationError
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
    limit = None
    if budget is not None:
        limit = min(parse_budget(budget, stored.backbone.parameter_count).parameters, stored.budget.parameters)
    now = standing(stored, rows, limit)
    if as_json:
        document(front_document(stored, now) | ({"budget": limit} if limit else {}))
    else:
        print(front_text(stored, now))
    if not now.front:
        raise BudgetError(f"the front of {stored.name} is empty: no searched trial within the budget is complete")


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
