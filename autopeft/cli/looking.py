"""Commands that read: ``status``, ``trials``, ``front``, ``show``, and the dashboard; none of them writes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from autopeft.cli.console import Database, Json, StudyName, document
from autopeft.errors import BudgetError, ConfigurationError

if TYPE_CHECKING:
    from autopeft.standing import Standing
    from autopeft.study import Study, Trial


def status(study: StudyName = None, db: Database = None, as_json: Json = False) -> None:
    """How far a study is, and what failed."""
    from autopeft.measurement import TRUNCATION, truncation_lines
    from autopeft.report import status_document, status_text
    from autopeft.settings import database_url
    from autopeft.spending import HOUR, cost_text, device_seconds
    from autopeft.standing import standing
    from autopeft.store.reader import Reader

    with Reader.open(database_url(db)) as reader:
        stored = reader.study(study)
        trials = reader.summaries(stored.name)
        failures = reader.failures(stored.name)
        used = device_seconds(stored, sum(reader.worker_seconds(stored.name)))
        measured = next((trial.number for trial in trials if trial.values), None)
        cut = {} if measured is None else reader.measurement(stored.name, measured).details.get(TRUNCATION, {})
    now = standing(stored, trials)
    if as_json:
        spent = {"device_seconds": used, "device_hours": stored.device_hours}
        spent |= {} if stored.hour_price is None else {"price": used / HOUR * stored.hour_price}
        document(status_document(stored, trials, now) | {"failed_attempts": failures, TRUNCATION: cut, **spent})
        return
    print(status_text(stored, trials, now))
    for line in truncation_lines(cut):
        print(f"rows     {line}")
    device = stored.environment.get("device", "cpu")
    print(f"used     {cost_text(used, device, stored.hour_price, stored.device_hours)}")
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
    objectives: Annotated[
        str | None, typer.Option("--objectives", help="The metric and costs to trade off instead of the study's.")
    ] = None,
    probability: Annotated[
        bool, typer.Option("--probability", help="How likely each is on the front, given the noise; takes seconds.")
    ] = False,
    any_environment: Annotated[
        bool, typer.Option("--any-environment", help="Also where its trials ran under different versions or devices.")
    ] = False,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """The Pareto front of a study, with the control beside it."""
    from autopeft.budget import parse_budget
    from autopeft.confirming import confirmed, numbers, will_come
    from autopeft.report import front_document, front_text, left_out, odds_document
    from autopeft.scales import trading
    from autopeft.settings import database_url
    from autopeft.standing import in_full, standing
    from autopeft.store.overlook import Overlook

    with Overlook.open(database_url(db)) as reader:
        stored = reader.study(study)
        if objectives is not None:
            stored = trading(stored, objectives)
        limit = None
        if budget is not None:
            limit = min(parse_budget(budget, stored.backbone.parameter_count).parameters, stored.budget.parameters)
        summaries = reader.summaries(stored.name)
        now = in_full(standing(stored, summaries, limit), lambda number: reader.trial(stored.name, number))
        if now.lacking:  # exact costs of older records follow from the configurations, which summaries leave out
            now = standing(stored, reader.trials(stored.name), limit)
        again = confirmed(stored, summaries, now, reader.marks(stored.name, numbers(summaries)), limit)
        environments = reader.environments(stored.name, [trial.number for trial in (*now.front, *now.control)])
        chances, others = _chances(stored, now, reader.trials(stored.name), limit) if probability else ({}, [])
    mixed = _differences(environments)
    if mixed and not any_environment:
        raise ConfigurationError(
            f"the front mixes environments ({_said(mixed)}), so its values may not compare; "
            "--any-environment shows it all the same"
        )
    if as_json:
        extra = odds_document(now, chances, others) if probability else {}
        extra |= {"budget": limit} if limit else {}
        document(front_document(stored, now, again) | extra | {"mixed_environments": mixed})
    else:
        to_come = will_come(stored, summaries)
        print(front_text(stored, now, again, odds=chances, near=others, to_come=to_come))
        if mixed:
            print(f"mixed environments: {_said(mixed)}")
    if not now.front:
        why = "; ".join(left_out(stored, now)) or "no searched trial within the budget is complete"
        raise BudgetError(f"the front of {stored.name} is empty: {why}")


def _chances(
    study: Study, now: Standing, trials: Sequence[Trial], limit: int | None
) -> tuple[dict[str, float], list[Trial]]:
    """Probability of being on the front by digest, and the trials that are no members but have a chance."""
    from autopeft.asking import near, odds
    from autopeft.study import PARAMETERS

    ceiling = study.budget.parameters if limit is None else limit
    within = [trial for trial in trials if trial.values.get(PARAMETERS, 0) <= ceiling]
    chances = odds(study, within)
    return chances, near(now, within, chances)


def _differences(environments: Mapping[int, Mapping[str, str]]) -> dict[str, list[str]]:
    """What the versions, devices and hashes under some measurements differ in, each with all its values."""
    found = list(environments.values())
    keys = sorted({key for environment in found for key in environment})
    values = {key: sorted({environment.get(key, "unknown") for environment in found}) for key in keys}
    return {key: each for key, each in values.items() if len(each) > 1}


def _said(differences: Mapping[str, list[str]]) -> str:
    return "; ".join(f"{key} {' and '.join(values)}" for key, values in differences.items())


def show(
    trial: Annotated[int, typer.Argument(help="Number of the trial.", min=0)],
    layers: Annotated[bool, typer.Option("--layers", help="The score sheet: rank per module and layer.")] = False,
    svg: Annotated[bool, typer.Option("--svg", help="With --layers: only the sheet, as an SVG document.")] = False,
    study: StudyName = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """One trial: state, values, configuration, error."""
    from autopeft.report import trial_row, trial_text
    from autopeft.score_sheet import svg_sheet, text_sheet
    from autopeft.settings import database_url
    from autopeft.store.reader import Reader

    if svg and (as_json or not layers):
        raise ConfigurationError("--svg: give it with --layers, and without --json")
    with Reader.open(database_url(db)) as reader:
        stored = reader.study(study)
        row = reader.trial(stored.name, trial)
        measured = reader.measurement(stored.name, trial) if row.values else None
    details = measured.details if measured else None
    if svg:
        print(
            svg_sheet(row.configuration, stored.backbone, title=f"{stored.name} · trial {trial}", details=details),
            end="",
        )
        return
    if as_json:
        learned = {"curve": measured.curve, "details": measured.details} if measured else {}
        document({"schema": "autopeft.trial/1", "study": stored.name, **trial_row(row), **learned})
        return
    print(trial_text(stored, row, row.values, details or {}))
    if layers:
        print()
        print(text_sheet(row.configuration, stored.backbone, details=details))


def dashboard(
    port: Annotated[int, typer.Option("--port", "-p", min=1, max=65535, help="Port to listen on.")] = 8501,
    address: Annotated[
        str, typer.Option("--address", help="Address to listen on; others need AUTOPEFT_DASHBOARD_PASSWORD.")
    ] = "127.0.0.1",
    headless: Annotated[bool, typer.Option("--headless", help="Do not open a browser.")] = False,
    db: Database = None,
) -> None:
    """Show the studies in the browser, on this machine only unless told otherwise."""
    from autopeft.settings import database_url

    environment = {**os.environ, "AUTOPEFT_DB": database_url(db)}
    command = [sys.executable, "-P", "-m", "dashboard", "--port", str(port), "--address", address]
    sys.stdout.flush()
    os.execve(command[0], [*command, *(["--headless"] if headless else [])], environment)


def register(app: typer.Typer) -> None:
    """Adds the commands to ``app``."""
    for command in (status, front, trials, show, dashboard):
        app.command()(command)
