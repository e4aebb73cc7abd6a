"""The front and the hypervolume as inline SVG; colours by class, so that one stylesheet serves both themes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from autopeft import pareto
from autopeft.candidates import Measured
from autopeft.html_report.plane import HEIGHT, RIGHT, WIDTH, Axis, Plane, text
from autopeft.objectives import show
from autopeft.picking import Candidate
from autopeft.precision import possible
from autopeft.standing import Standing
from autopeft.study import PARAMETERS, Direction, Objective, Origin, Study, TrialState

MOST = 1500
"""Dominated points drawn; of more, those next to each other are drawn once."""


def front_picture(
    study: Study, trials: Sequence[Measured], standing: Standing[Measured], known: Mapping[int, Candidate]
) -> str:
    """Quality against the first cost: the front with error bars, the control, references, everything else; or a word.

    Args:
        study: Names the objectives.
        trials: All trials.
        standing: Where the study stands.
        known: Members of front, control and references with their precision, by number.
    """
    x, y = _axes(study)
    beside = [one for one in standing.beside if one.values[PARAMETERS] <= study.budget.parameters]
    levels = [one for one in standing.references if one not in beside]
    complete = [one for one in trials if one.state is TrialState.COMPLETE and one.origin.is_shown]
    shown = [one for one in complete if x.name in one.values and y.name in one.values]
    if not shown:
        return "<p>No trial with an adapter is measured yet, so there is nothing to draw.</p>"
    seen = [one for one in (*shown, *beside) if x.name in one.values]
    plane = Plane(_axis(study, x, seen), _axis(study, y, [*seen, *levels]))
    front = {one.number for one in standing.front}
    body = [*plane.axes(), *_budget(study, plane, x), *_edge(study, plane, standing, x, y)]
    body += _levels(plane, levels, y)
    body += _dots(plane, [one for one in shown if one.origin is not Origin.CONTROL and one.number not in front], x, y)
    barred = [*standing.front, *beside, *(one for one in shown if one.origin is Origin.CONTROL)]
    body += _bars(study, plane, known, barred, x)
    body += [_square(plane, one, x, y) for one in beside if x.name in one.values]
    body += [_diamond(plane, one, x, y) for one in shown if one.origin is Origin.CONTROL]
    body += [_member(plane, one, x, y) for one in standing.front]
    words = f"{y.name} against {x.name}: {len(front)} members of the front among {len(shown)} trials"
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" aria-label="{escape(words)}">'
        f"{''.join(body)}</svg>{_LEGEND}"
    )


def volume_picture(volumes: Sequence[tuple[int, float]], control: float) -> str:
    """The hypervolume over finished trials, with the control's as a line; nothing for fewer than two points."""
    if len(volumes) < 2:
        return ""
    step = max(1, len(volumes) // 400)
    points = [*volumes[:-1:step], volumes[-1]]
    highest = max([control, *(value for _, value in points)])
    plane = Plane(
        Axis("trials finished", 0.0, points[-1][0] * 1.02 or 1.0),
        Axis("hypervolume · higher is better: up", 0.0, highest * 1.08 or 1.0),
    )
    path = f"M{plane.across(points[0][0]):.1f} {plane.down(points[0][1]):.1f}"
    path += "".join(f"H{plane.across(at):.1f}V{plane.down(value):.1f}" for at, value in points[1:])
    level = plane.down(control)
    words = f"Hypervolume over {points[-1][0]} trials, at last {points[-1][1]:.4f}; control {control:.4f}"
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" aria-label="{escape(words)}">'
        f'{"".join(plane.axes())}<path class="controlled" d="M{plane.across(0):.1f} {level:.1f}H{WIDTH - RIGHT:.1f}"/>'
        f"{text(WIDTH - RIGHT, level - 6, f'control {control:.4f}', 'end', 'control')}"
        f'<path class="edge" d="{path}"/></svg>'
    )


_LEGEND = (
    '<p class="legend"><span class="front">●</span> front, with 95 % intervals where known '
    '<span class="control">◆</span> control <span class="reference">■</span> references '
    '<span class="dominated">●</span> dominated</p>'
)


def _axes(study: Study) -> tuple[Objective, Objective]:
    """(across, up): the first cost and the quality."""
    quality, *costs = study.objectives
    return (costs[0] if costs else quality), quality


def _axis(study: Study, objective: Objective, shown: Sequence[Measured]) -> Axis:
    values = [one.values[objective.name] for one in shown]
    if objective.name == PARAMETERS:
        values.append(float(study.budget.parameters))
    low, up = objective.direction is Direction.MINIMISE, objective is study.objectives[0]
    logarithmic = objective.name == PARAMETERS or (low and min(values) > 0 and max(values) / min(values) >= 10)
    better = "lower" if low else "higher"
    scale = " (log scale)" if logarithmic else ""
    title = f"{objective.name.replace('_', ' ')}{scale} · {better} is better: {'up' if up else 'left'}"
    return Axis.around(title, values, logarithmic=logarithmic, turned=low == up)


def _budget(study: Study, plane: Plane, x: Objective) -> Iterator[str]:
    if x.name != PARAMETERS:
        return
    at = plane.across(study.budget.parameters)
    yield f'<path class="limit" d="M{at:.1f} {plane.down(plane.y.high):.1f}V{plane.down(plane.y.low):.1f}"/>'
    yield text(at - 6, plane.down(plane.y.low) - 6, f"budget {study.budget.parameters:,}", "end")


def _edge(study: Study, plane: Plane, standing: Standing[Measured], x: Objective, y: Objective) -> Iterator[str]:
    """The edge of what the front dominates in this plane."""
    places = [(one.values[y.name], one.values[x.name]) for one in standing.front]
    members = [places[index] for index in pareto.front(places)]
    if not members:
        return
    path = f"M{plane.across(members[0][1]):.1f} {plane.down(members[0][0]):.1f}"
    path += "".join(f"H{plane.across(cost):.1f}V{plane.down(quality):.1f}" for quality, cost in members[1:])
    if x.name == PARAMETERS:
        path += f"H{plane.across(study.budget.parameters):.1f}"
    yield f'<path class="edge" d="{path}"/>'


def _dots(plane: Plane, dominated: Sequence[Measured], x: Objective, y: Objective) -> list[str]:
    """A dot a trial; of many, one for each cell where dots would cover each other."""
    cell = 0.5 if len(dominated) <= MOST else 4.0
    seen: dict[tuple[int, int], str] = {}
    for one in dominated:
        at, down = plane.across(one.values[x.name]), plane.down(one.values[y.name])
        dot = f'<circle class="dominated" cx="{at:.1f}" cy="{down:.1f}" r="2.6"/>'
        seen.setdefault((int(at / cell), int(down / cell)), dot)
    return list(seen.values())


def _bars(
    study: Study, plane: Plane, known: Mapping[int, Candidate], shown: Sequence[Measured], x: Objective
) -> list[str]:
    bars = []
    for one in shown:
        found = known[one.number].quality.interval if one.number in known else None
        if found is not None:
            low, high = (min(max(value, plane.y.low), plane.y.high) for value in possible(study.metric, found))
            at = plane.across(one.values[x.name])
            kind = {Origin.CONTROL: "control", Origin.REFERENCE: "reference"}.get(one.origin, "front")
            bars.append(f'<path class="bar {kind}" d="M{at:.1f} {plane.down(low):.1f}V{plane.down(high):.1f}"/>')
    return bars


def _diamond(plane: Plane, one: Measured, x: Objective, y: Objective) -> str:
    at, down = plane.across(one.values[x.name]), plane.down(one.values[y.name])
    return (
        f'<path class="control" d="M{at:.1f} {down - 6:.1f}l6 6l-6 6l-6-6z"><title>{_title(one, x, y)}</title></path>'
    )


def _square(plane: Plane, one: Measured, x: Objective, y: Objective) -> str:
    at, down = plane.across(one.values[x.name]), plane.down(one.values[y.name])
    said = f"<title>reference, {_title(one, x, y)}</title>"
    return f'<rect class="reference" x="{at - 4.5:.1f}" y="{down - 4.5:.1f}" width="9" height="9">{said}</rect>'


def _levels(plane: Plane, levels: Sequence[Measured], y: Objective) -> Iterator[str]:
    """References that no budget holds, the head alone and full fine-tuning, as lines across."""
    for one in levels:
        at = plane.down(one.values[y.name])
        name = "full fine-tuning" if one.values[PARAMETERS] else "head only"
        yield f'<path class="limit" d="M{plane.across(plane.x.low):.1f} {at:.1f}H{plane.across(plane.x.high):.1f}"/>'
        yield text(WIDTH - RIGHT - 6, at - 6, f"{name} {one.values[y.name]:.4f}", "end")


def _member(plane: Plane, one: Measured, x: Objective, y: Objective) -> str:
    at, down = plane.across(one.values[x.name]), plane.down(one.values[y.name])
    return (
        f'<a href="#trial-{one.number}"><circle class="front" cx="{at:.1f}" cy="{down:.1f}" r="5">'
        f"<title>{_title(one, x, y)}</title></circle></a>"
    )


def _title(one: Measured, x: Objective, y: Objective) -> str:
    cost = f"{show(x.name, one.values[x.name])} {x.name.replace('_', ' ')}"
    return escape(f"trial {one.number}: {one.values[y.name]:.4f} with {cost}")
