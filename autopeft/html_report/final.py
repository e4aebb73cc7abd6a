"""The final front as one static page: picture, verdict, every member beside its promise, who fell off."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from autopeft.final_front import FinalFront, harness_lines
from autopeft.html_report.document import facts, page
from autopeft.html_report.pictures import front_picture
from autopeft.objectives import show
from autopeft.picking import Candidate
from autopeft.ruling import ruling_lines
from autopeft.score_sheet import html_sheet
from autopeft.study import PARAMETERS


def final_page(front: FinalFront) -> str:
    """The page as one HTML document."""
    study = front.study
    finals = [*front.standing.front, *front.standing.control]
    shown = {one.number for one in finals}
    rest = [
        front.finished[number].trial.with_values(_values(front, found))
        for number, found in front.known.items()
        if number not in shown
    ]
    body = [
        f"<h1>{escape(study.name)}: the final front</h1>",
        facts(_question(front)),
        "<h2>Front</h2>",
        front_picture(study, [*finals, *rest], front.standing, front.known),
        "<h2>Verdict</h2>",
        *(f"<p>{escape(line.strip())}</p>" for line in ruling_lines(study, front.confirmed)),
        *_table(front),
        *(f"<p>{escape(line)}</p>" for line in harness_lines(front)),
        *_sheets(front),
    ]
    return page(f"{study.name}: the final front", body)


def _values(front: FinalFront, found: Candidate) -> dict[str, float]:
    names = [objective.name for objective in front.study.objectives]
    return dict(front.finished[found.number].trial.values) | dict(zip(names, found.values, strict=True))


def _question(front: FinalFront) -> list[tuple[str, str]]:
    study, runs = front.study, next(iter(front.finished.values())).runs
    standing = front.standing
    return [
        ("task", study.task_name),
        ("backbone", f"{study.backbone.name}, {study.backbone.parameter_count:,} parameters"),
        ("scored on", f"the {front.split} split"),
        ("seeds", ", ".join(str(run.seed) for run in runs)),
        ("budget", f"{study.budget.text} = {study.budget.parameters:,} trainable parameters"),
        ("hypervolume", f"{standing.hypervolume:.4f}, control {standing.control_hypervolume:.4f}"),
    ]


def _table(front: FinalFront) -> Iterator[str]:
    """Every member of both sides, cheapest first."""
    names = [objective.name for objective in front.study.objectives]
    heads = ["trial", "side", *(name.replace("_", " ") for name in names), "promised", "promise", "on the front"]
    yield "<h2>Members</h2>"
    yield f"<table><thead><tr>{''.join(f'<th scope=col>{escape(head)}</th>' for head in heads)}</tr></thead><tbody>"
    for side, group in (("front", front.confirmed.front), ("control", front.confirmed.control)):
        for one in sorted(group, key=lambda each: each.values[1:]):
            cells = "".join(f"<td>{escape(cell)}</td>" for cell in _cells(front, one, side))
            yield f'<tr><td><a href="#trial-{one.number}">{one.number}</a></td>{cells}</tr>'
    yield "</tbody></table>"


def _cells(front: FinalFront, one: Candidate, side: str) -> Iterator[str]:
    error = "" if one.quality.error is None else f" ± {one.quality.error:.4f}"
    compared = front.compared(one.number)
    yield side
    yield f"{one.quality.mean:.4f}{error}"
    for objective, value in zip(front.study.objectives[1:], one.values[1:], strict=True):
        yield show(objective.name, value)
    yield "–" if compared is None else f"{compared.promised.value:.4f}"
    yield "–" if compared is None else compared.answer.value
    if side == "control":
        yield front.finished[one.number].trial.label or ""
    elif one.number in front.fallen:
        better = front.fallen[one.number]
        yield "falls off" + ("" if better is None else f": trial {better} is as good or better at no more cost")
    else:
        yield f"{front.confirmed.memberships[one.number]:.0%}"


def _sheets(front: FinalFront) -> Iterator[str]:
    yield "<h2>Score sheets</h2>"
    for number, found in front.known.items():
        trial = front.finished[number].trial
        said = f"Trial {number}: {found.quality.mean:.4f}, {show(PARAMETERS, trial.values[PARAMETERS])} parameters"
        sheet = html_sheet(trial.configuration, front.study.backbone, caption=said)
        yield f'<section id="trial-{number}">{sheet}</section>'
