"""The static page itself: what is asked, the front as a picture and a table, the verdict, score sheets, provenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from autopeft.agreement import agreement, sentences
from autopeft.candidates import Measured
from autopeft.choices import value_text
from autopeft.html_report.pictures import front_picture, volume_picture
from autopeft.measurement import as_trained
from autopeft.objectives import point, show
from autopeft.picking import Candidate
from autopeft.proxy import trained_on
from autopeft.report import layer_bars, rank_sum
from autopeft.score_sheet import html_agreement, html_sheet
from autopeft.standing import Standing
from autopeft.study import PARAMETERS, Study, TrialState
from search_spaces.configuration import Configuration


@dataclass(frozen=True)
class Contents:
    """Everything that a report shows of a study.

    Attributes:
        study: The study.
        trials: All its trials.
        standing: Its fronts.
        known: Members of front, control and references with their precision, by number.
        plans: Configurations of the members of the front, by number.
        details: What they learned, by number.
        volumes: (trials finished, hypervolume) over time.
        verdict: Front against control, a sentence a line.
        environments: What the members' measurements rest on, by number.
        version: Of autopeft.
        labels: Of control and references, by number.
        fresh: Members of front and control by runs that did not choose them, by number; empty before there are any.
    """

    study: Study
    trials: Sequence[Measured]
    standing: Standing[Any]
    known: Mapping[int, Candidate]
    plans: Mapping[int, Configuration]
    details: Mapping[int, Mapping[str, Any]]
    volumes: Sequence[tuple[int, float]]
    verdict: Sequence[str]
    environments: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    version: str = ""
    labels: Mapping[int, str] = field(default_factory=dict)
    fresh: Mapping[int, Candidate] = field(default_factory=dict)


def html_report(contents: Contents) -> str:
    """The page as one HTML document."""
    study = contents.study
    title = f"{study.name}: {study.task_name} on {study.backbone.name}"
    body = [
        f"<h1>{escape(study.name)}</h1>",
        *_question(contents),
        "<h2>Front</h2>",
        front_picture(study, contents.trials, contents.standing, contents.known),
        *_verdict(contents),
        *_table(contents),
        *_control(contents),
        *_references(contents),
        *_volumes(contents),
        *_agreement(contents),
        *_sheets(contents),
        *_provenance(contents),
    ]
    return page(title, body)


def page(title: str, body: Sequence[str]) -> str:
    """One HTML document that loads nothing."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        "<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _question(contents: Contents) -> Iterator[str]:
    study, counted = contents.study, dict.fromkeys(TrialState, 0)
    for trial in contents.trials:
        counted[trial.state] += 1
    states = ", ".join(f"{count:,} {state.value.lower()}" for state, count in counted.items() if count) or "none yet"
    rows = [
        ("task", study.task_name),
        ("backbone", f"{trained_on(study)}, {study.backbone.parameter_count:,} parameters"),
        ("space", study.space.name),
        ("objectives", ", ".join(f"{one.name} ({one.direction.value})" for one in study.objectives)),
        ("budget", f"{study.budget.text} = {study.budget.parameters:,} trainable parameters"),
        ("trials", states),
        ("hypervolume", f"{contents.standing.hypervolume:.4f}, control {contents.standing.control_hypervolume:.4f}"),
    ]
    yield facts(rows)


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values in two columns."""
    cells = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows)
    return f'<table class="facts"><tbody>{cells}</tbody></table>'


def _verdict(contents: Contents) -> Iterator[str]:
    yield "<h2>Verdict</h2>"
    yield from (f"<p>{escape(line)}</p>" for line in contents.verdict)


def _table(contents: Contents) -> Iterator[str]:
    """The front in rows."""
    study, standing = contents.study, contents.standing
    if not standing.front:
        return
    names = [objective.name for objective in study.objectives]
    heads = ["trial", *(name.replace("_", " ") for name in names), *_fresh_head(contents)]
    heads += ["of the backbone", "layers", "Σ rank"]
    yield "<h2>Members of the front</h2>"
    if contents.fresh:
        yield "<p>The first values chose the front, which flatters them; fresh seeds had no part in that.</p>"
    yield f"<table><thead><tr>{''.join(f'<th scope=col>{escape(head)}</th>' for head in heads)}</tr></thead><tbody>"
    for trial in standing.front:
        plan = contents.plans[trial.number]
        share = trial.values[PARAMETERS] / study.backbone.parameter_count
        cells = [*_values(contents, trial), *_fresh(contents, trial)]
        cells += [f"{share:.3%}", layer_bars(plan), f"{rank_sum(plan):,}"]
        link = f'<a href="#trial-{trial.number}">{trial.number}</a>'
        yield f"<tr><td>{link}</td>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
    yield "</tbody></table>"


def _control(contents: Contents) -> Iterator[str]:
    """The front of the control in rows."""
    study, standing = contents.study, contents.standing
    if not standing.control:
        return
    names = [objective.name for objective in study.objectives]
    heads = ["trial", "size", *(name.replace("_", " ") for name in names), *_fresh_head(contents), "of the backbone"]
    yield "<h2>Control</h2>"
    yield "<p>Plain LoRA of one size in every layer: the members of its own front.</p>"
    yield f"<table><thead><tr>{''.join(f'<th scope=col>{escape(head)}</th>' for head in heads)}</tr></thead><tbody>"
    for trial in standing.control:
        share = f"{trial.values[PARAMETERS] / study.backbone.parameter_count:.3%}"
        cells = [str(trial.number), contents.labels.get(trial.number, ""), *_values(contents, trial)]
        cells += [*_fresh(contents, trial), share]
        yield f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
    yield "</tbody></table>"


def _fresh_head(contents: Contents) -> list[str]:
    return ["with fresh seeds"] if contents.fresh else []


def _fresh(contents: Contents, trial: Measured) -> list[str]:
    if not contents.fresh:
        return []
    found = contents.fresh.get(trial.number)
    return ["–" if found is None else value_text(contents.study.metric, found.quality)]


def _references(contents: Contents) -> Iterator[str]:
    """What other methods reach on the same split and order; apart, since it is on no front and in no verdict."""
    study, beside = contents.study, contents.standing.beside
    if not beside:
        return
    names = [objective.name for objective in study.objectives]
    heads = ["trial", "reference", *(name.replace("_", " ") for name in names), "of the backbone"]
    yield "<h2>References</h2>"
    yield "<p>One method at one size in every layer, or all weights: on no front, and no part of the verdict.</p>"
    yield f"<table><thead><tr>{''.join(f'<th scope=col>{escape(head)}</th>' for head in heads)}</tr></thead><tbody>"
    for trial in beside:
        share = f"{trial.values[PARAMETERS] / study.backbone.parameter_count:.3%}"
        cells = [str(trial.number), contents.labels.get(trial.number, ""), *_values(contents, trial), share]
        yield f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
    yield "</tbody></table>"


def _values(contents: Contents, trial: Measured) -> list[str]:
    quality, *costs = contents.study.objectives
    known = contents.known.get(trial.number)
    first = value_text(quality.name, known.quality) if known else f"{trial.values[quality.name]:.4f}"
    places = point(contents.study, trial) or ()
    return [first, *(show(one.name, value) for one, value in zip(costs, places[1:], strict=True))]


def _volumes(contents: Contents) -> Iterator[str]:
    picture = volume_picture(contents.volumes, contents.standing.control_hypervolume)
    if picture:
        yield f"<h2>Hypervolume</h2>{picture}"


def _agreement(contents: Contents) -> Iterator[str]:
    members = [
        as_trained(contents.plans[trial.number], contents.details.get(trial.number))
        for trial in contents.standing.front
    ]
    if not members:
        return
    found = agreement(members)
    yield "<h2>What the front agrees on</h2>"
    yield html_agreement(found, len(members))
    yield f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in sentences(found, len(members)))}</ul>"


def _sheets(contents: Contents) -> Iterator[str]:
    if contents.standing.front:
        yield "<h2>Score sheets</h2>"
    for trial in reversed(contents.standing.front):
        plan = contents.plans[trial.number]
        rate = f"learning rate {plan.training.learning_rate:g}"
        said = f"Trial {trial.number}: {', '.join(_values(contents, trial))}; {rate}"
        sheet = html_sheet(plan, contents.study.backbone, caption=said, details=contents.details.get(trial.number))
        yield f'<section id="trial-{trial.number}">{sheet}</section>'


def _provenance(contents: Contents) -> Iterator[str]:
    study, fidelity = contents.study, contents.study.fidelity
    environment = dict(study.environment)
    for found in contents.environments.values():
        for key, value in found.items():
            if environment.setdefault(key, value) != value:
                environment[key] = f"{environment[key]}, {value}" if value not in environment[key] else environment[key]
    rows = [
        ("study", study.name),
        ("study seed", str(study.seed)),
        ("model", f"{study.model.source}, sha256 {study.model.sha256}"),
        ("proposer", f"{study.proposer}, {study.initial_count} initial proposals"),
        ("training", f"{fidelity.steps} steps of {fidelity.batch_size} rows, at most {fidelity.max_length} tokens"),
        *((key.replace("_", " "), str(value)) for key, value in sorted(environment.items())),
        ("autopeft", contents.version),
    ]
    yield "<h2>Provenance</h2>"
    yield facts(rows)
    yield "<p>Scores are of the validation split, on which the search ranked its trials.</p>"


_STYLE = (
    ":root{color-scheme:light dark;--score-sheet-page:light-dark(#ffffff,#0e1117)}"
    "body{font:16px/1.5 system-ui,'Noto Sans','Segoe UI',Helvetica,Arial,sans-serif;max-width:1180px;margin:2rem auto;"
    "padding:0 1.5rem;background:light-dark(#ffffff,#0e1117);color:light-dark(#1f2937,#f3f5f8)}"
    "h1{margin:0 0 1rem}h2{margin:2.2rem 0 .6rem}"
    "a{color:light-dark(#0f766e,#2dd4bf)}"
    "table:not(.score-sheet table){border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "body>table th,body>table td{text-align:left;padding:.3rem .9rem .3rem 0;font-weight:400;"
    "border-bottom:1px solid light-dark(#dfe3e8,#2b313b)}"
    "body>table thead th,.facts th{color:light-dark(#4b5563,#aeb6c2)}"
    "section{margin:1.4rem 0}"
    ".plot{width:100%;max-width:860px;height:auto;display:block}"
    ".plot text{font-size:12px;fill:light-dark(#4b5563,#aeb6c2)}.plot text.control{fill:light-dark(#6d4aa8,#c4a7f5)}"
    ".plot .grid{stroke:light-dark(#dfe3e8,#2b313b)}.plot .tick,.plot .limit{stroke:light-dark(#9aa2ae,#6b7482)}"
    ".plot .limit{stroke-dasharray:4 4}.plot .edge{fill:none;stroke:light-dark(#0f766e,#2dd4bf);stroke-width:2}"
    ".plot .front{fill:light-dark(#0f766e,#2dd4bf)}.plot .control{fill:light-dark(#6d4aa8,#c4a7f5)}"
    ".plot .reference{fill:light-dark(#9a6700,#e3b341)}"
    ".plot .bar.reference{stroke:light-dark(#9a6700,#e3b341);opacity:.6}"
    ".legend .reference{color:light-dark(#9a6700,#e3b341);margin-left:1rem}"
    ".plot .dominated{fill:light-dark(#8592a6,#74839a);opacity:.6}"
    ".plot .bar.front{stroke:light-dark(#0f766e,#2dd4bf);opacity:.6}"
    ".plot .bar.control{stroke:light-dark(#6d4aa8,#c4a7f5);opacity:.6}"
    ".plot .controlled{fill:none;stroke:light-dark(#6d4aa8,#c4a7f5);stroke-dasharray:6 4}"
    ".legend{color:light-dark(#4b5563,#aeb6c2)}.legend .front{color:light-dark(#0f766e,#2dd4bf)}"
    ".legend .control{color:light-dark(#6d4aa8,#c4a7f5);margin-left:1rem}"
    ".legend .dominated{color:light-dark(#8592a6,#74839a);margin-left:1rem}"
)
