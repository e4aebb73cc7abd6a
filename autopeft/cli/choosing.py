"""Commands that help to choose: ``pick`` and ``compare``; neither writes anything."""

from __future__ import annotations

from typing import Annotated

import typer

from autopeft.cli.console import Database, Json, StudyName, document
from autopeft.cli.ending import database_flag, next_text
from autopeft.errors import ConfigurationError


def pick(
    rule: Annotated[str, typer.Option("--rule", "-r", help="best, knee or cheapest-within.")] = "best",
    within: Annotated[
        float | None,
        typer.Option("--within", help="For cheapest-within: how far below the best (default: one standard error)."),
    ] = None,
    budget: Annotated[str | None, typer.Option("--budget", "-b", help="A tighter budget: 0.2%, 50k.")] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="Only what this export target can hold whole: peft, vllm, trl, …")
    ] = None,
    study: StudyName = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Pick a trial from the front, or from the front of what a target holds; what is not told apart is called a tie."""
    from autopeft.budget import parse_budget
    from autopeft.candidates import candidates, repeat_numbers
    from autopeft.choices import pick_document, pick_text
    from autopeft.errors import BudgetError
    from autopeft.export.holding import EVERY, everyday_target, hold_of
    from autopeft.picking import Rule
    from autopeft.picking import pick as picked_by
    from autopeft.settings import database_url
    from autopeft.standing import standing
    from autopeft.store.overlook import Overlook

    if rule not in set(Rule):
        raise ConfigurationError(f"rule {rule!r}: expected one of {', '.join(Rule)}")
    if to is not None and to not in EVERY:
        raise ConfigurationError(f"export target {to!r}: expected one of {', '.join(EVERY)}")
    url = database_url(db)
    with Overlook.open(url) as reader:
        stored = reader.study(study)
        trials = reader.trials(stored.name)
        fitting = [one for one in trials if to is None or hold_of(stored, one.configuration, to).is_whole]
        limit = None
        if budget is not None:
            limit = min(parse_budget(budget, stored.backbone.parameter_count).parameters, stored.budget.parameters)
        front = standing(stored, fitting, limit).front
        if not front:
            kept = "" if to is None else f" and goes whole to {to}"
            raise BudgetError(
                f"the front of {stored.name} is empty: no searched trial within the budget is complete{kept}"
            )
        marks = reader.marks(stored.name, repeat_numbers(trials, front))
    found = candidates(stored, trials, front, marks)
    chosen = picked_by(found, stored.objectives, Rule(rule), within)
    if as_json:
        document(pick_document(stored, found, chosen, limit, to))
    else:
        plan = next(member.configuration for member in front if member.number == chosen.number)
        flags = f" --study {stored.name}{database_flag(url)}"
        use = f"export {chosen.number} --to {to or everyday_target(plan, stored.backbone)} -o runs/{chosen.number}"
        print(pick_text(stored, found, chosen))
        print(next_text(f"show {chosen.number} --layers{flags}", f"{use}{flags}"))


def compare(
    numbers: Annotated[list[int], typer.Argument(metavar="A B [C [D]]", help="Numbers of two to four trials.", min=0)],
    study: StudyName = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Compare two to four trials: their values with error bars, and where their plans differ."""
    from autopeft.choices import comparison_document, comparison_text
    from autopeft.comparing import compare as compared
    from autopeft.score_sheet import contrast_map
    from autopeft.settings import database_url
    from autopeft.store.overlook import Overlook

    if len(set(numbers)) != len(numbers) or not 2 <= len(numbers) <= 4:
        raise ConfigurationError(f"compare {' '.join(map(str, numbers))}: expected two to four different trials")
    with Overlook.open(database_url(db)) as reader:
        stored = reader.study(study)
        chosen = [reader.trial(stored.name, number) for number in numbers]
        glances = reader.glances(stored.name)
        digests = {trial.digest for trial in chosen}
        marks = reader.marks(stored.name, [one.number for one in glances if one.digest in digests])
    lines = compared(stored, chosen, glances, marks)
    cells = contrast_map({f"trial {trial.number}": trial.configuration for trial in chosen}, stored.backbone)
    if as_json:
        document(comparison_document(stored, chosen, lines, cells))
    else:
        print(comparison_text(stored, chosen, lines, cells))


def register(app: typer.Typer) -> None:
    """Adds the commands to ``app``."""
    for command in (pick, compare):
        app.command()(command)
