"""How ``search``, ``resume`` and ``confirm`` end: the front on stdout, what to type next on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from autopeft.cli.console import document, note
from autopeft.errors import BudgetError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autopeft.confirming import Confirmed
    from autopeft.running import SearchOutcome
    from autopeft.study import Trial


def finish(outcome: SearchOutcome, url: str, as_json: bool) -> None:
    """Prints front and verdict, and what to type next.

    Raises:
        BudgetError: If the front is empty.
        typer.Exit: With 130, if the search was interrupted.
    """
    from autopeft.confirming import will_come
    from autopeft.export.holding import everyday_target
    from autopeft.progress import Ending
    from autopeft.proxy import exportable
    from autopeft.report import first_line, front_document, front_text, left_out

    study, standing = outcome.study, outcome.standing
    if as_json:
        document(front_document(study, standing, outcome.confirmed))
    else:
        print(front_text(study, standing, outcome.confirmed, to_come=will_come(study, outcome.trials)))
    flag = database_flag(url)
    if outcome.ending is Ending.INTERRUPTED:
        note(f"interrupted; nothing is lost: autopeft resume {study.name}{flag}")
        raise typer.Exit(130)
    if not standing.front:
        failed = next((trial for trial in outcome.trials if trial.error), None)
        reasons = [f"trial {failed.number}: {first_line(failed.error)}"] if failed else left_out(study, standing)
        reason = "".join(f"; {said}" for said in reasons)
        raise BudgetError(f"{outcome.ending.value}, but the front is empty{reason} (autopeft status{flag} shows more)")
    best = recommended(standing.front, outcome.confirmed)
    trained = exportable(study, best, outcome.trials)
    if trained is None:
        use = f"train {best.number} -o runs/{best.number}"
    else:
        target = everyday_target(best.configuration, study.backbone)
        use = f"export {trained.number} --to {target} -o runs/{trained.number}"
    chosen = f" --study {study.name}{flag}"
    note(outcome.ending.value)
    note(next_text(f"show {best.number} --layers{chosen}", f"{use}{chosen}", f"dashboard{flag}"))


def recommended(front: Sequence[Trial], confirmed: Confirmed) -> Trial:
    """The best member of ``front`` by the runs that did not choose it; by those that did where there are no others."""
    again = {one.number: one.quality.mean for one in confirmed.front}
    fresh = [member for member in front if member.number in again]
    return max(fresh, key=lambda member: again[member.number]) if fresh else front[-1]


def next_text(*commands: str) -> str:
    """What to type next: a command of autopeft a line, to be copied as it stands."""
    return "\n".join(["next:", *(f"  autopeft {command}" for command in commands)])


def database_flag(url: str) -> str:
    """What commands on the record at ``url`` need behind them: its ``--db``, or nothing for that of this folder."""
    from autopeft.settings import DEFAULT_DATABASE

    return "" if url == DEFAULT_DATABASE else f" --db {shown(url)}"


def shown(url: str) -> str:
    """The URL without its password."""
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    if parts.password is None:
        return url
    return url.replace(f":{parts.password}@", ":***@")
