"""What ``pick`` and ``compare`` print: versioned JSON documents and plain text. No SQL, no terminal control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autopeft.comparing import Line
from autopeft.objectives import KINDS, show
from autopeft.picking import Candidate, Pick
from autopeft.precision import Difference, Estimate
from autopeft.score_sheet import text_contrast
from autopeft.score_sheet.contrast import ContrastMap
from autopeft.study import Study, Trial


def pick_document(
    study: Study, found: Sequence[Candidate], chosen: Pick, budget: int | None, target: str | None
) -> dict[str, Any]:
    """The document ``autopeft.pick/1``; ``target`` holds every member whole, None if nothing was asked."""
    return {
        "schema": "autopeft.pick/1",
        "study": study.name,
        "rule": chosen.rule.value,
        "trial": chosen.number,
        "ties": list(chosen.ties),
        "why": chosen.why,
        "budget": study.budget.parameters if budget is None else budget,
        "target": target,
        "members": [_member(study, candidate) for candidate in found],
    }


def pick_text(study: Study, found: Sequence[Candidate], chosen: Pick) -> str:
    """The pick, why, and its ties."""
    by_number = {candidate.number: candidate for candidate in found}
    lines = [f"trial {chosen.number}: {_values(study, by_number[chosen.number])}", f"  {chosen.rule}: {chosen.why}"]
    if chosen.ties:
        lines.append(f"  ties, whose {study.metric} is not told apart from its (95 %):")
        lines += [f"    trial {number}: {_values(study, by_number[number])}" for number in chosen.ties]
    elif all(candidate.quality.error is None for candidate in found):
        lines.append("  no standard error is known (no marks of single rows, no repeats): ties cannot be told")
    else:
        lines.append(f"  no tie: every other member's {study.metric} is told apart from its (95 %)")
    return "\n".join(lines)


def comparison_document(
    study: Study, chosen: Sequence[Trial], lines: Sequence[Line], cells: ContrastMap
) -> dict[str, Any]:
    """The document ``autopeft.comparison/1``."""
    return {
        "schema": "autopeft.comparison/1",
        "study": study.name,
        "trials": [trial.number for trial in chosen],
        "values": [
            {
                "name": line.name,
                "values": [None if one is None else {"mean": one.mean, "error": one.error} for one in line.estimates],
                "differences": [
                    None if one is None else {"mean": one.mean, "error": one.error, "tie": one.is_tie}
                    for one in line.differences
                ],
            }
            for line in lines
        ],
        "cells": [
            {"site": role, "layer": layer, "sizes": list(cell.sizes)}
            for role, row in zip(cells.roles, cells.rows, strict=True)
            for layer, cell in enumerate(row)
            if not cell.is_equal
        ],
    }


def comparison_text(study: Study, chosen: Sequence[Trial], lines: Sequence[Line], cells: ContrastMap) -> str:
    """Values side by side with what is told apart, then the cells that differ."""
    width = max(len(line.name) for line in lines) if lines else 8
    heads = [f"trial {trial.number}" for trial in chosen]
    rows = [["", *heads], *([line.name, *line_texts(line)] for line in lines)]
    rows.append(["learning_rate", *(f"{trial.configuration.training.learning_rate:g}" for trial in chosen)])
    columns = [max(len(row[index]) for row in rows) for index in range(len(heads) + 1)]
    columns[0] = max(columns[0], width)
    text = ["  ".join(cell.ljust(columns[index]) for index, cell in enumerate(row)).rstrip() for row in rows]
    names = " → ".join(heads) if len(heads) == 2 else ", ".join(heads)
    total = sum(len(row) for row in cells.rows)
    text.append(f"plans that differ in {cells.differing} of {total} places ({names}; place = layer: size):")
    return "\n".join([*text, text_contrast(cells)])


def line_texts(line: Line) -> list[str]:
    """The value of every trial, and how it differs from the first's."""
    told = (difference_text(line.name, one) for one in line.differences)
    values = (value_text(line.name, one) for one in line.estimates)
    return [f"{value} ({text})" if text else value for value, text in zip(values, told, strict=True)]


def value_text(name: str, value: Estimate | None) -> str:
    """A value for people, with its standard error: ``0.8733 ± 0.0136``, ``61,440``, ``412 MB``, ``–``."""
    if value is None:
        return "–"
    return show(name, value.mean) + (f" ± {show(name, value.error)}" if value.error else "")


def difference_text(name: str, found: Difference | None) -> str:
    """A difference for people, and whether it is one: ``+0.0083, tie``; nothing for none."""
    if found is None or found.mean == 0:
        return ""
    told = "" if found.error is None else ", tie" if found.is_tie else ", differs"
    return f"{'+' if found.mean > 0 else '-'}{show(name, abs(found.mean))}{told}"


def _values(study: Study, candidate: Candidate) -> str:
    texts = [f"{study.objectives[0].name} {value_text(study.metric, candidate.quality)}"]
    for objective, value in zip(study.objectives[1:], candidate.values[1:], strict=True):
        heading = KINDS[objective.name].heading if objective.name in KINDS else objective.name
        texts.append(f"{heading} {show(objective.name, value)}")
    return ", ".join(texts)


def _member(study: Study, candidate: Candidate) -> dict[str, Any]:
    names = [objective.name for objective in study.objectives]
    return {
        "trial": candidate.number,
        "values": dict(zip(names, candidate.values, strict=True)),
        "error": candidate.quality.error,
        "repeats": candidate.quality.repeats,
    }
