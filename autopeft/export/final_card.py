"""The model card of a final training: scores on the test split, what the search promised, every seed, provenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from autopeft.export.card import facts, native_code, opening, plain
from autopeft.objectives import show

if TYPE_CHECKING:
    from autopeft.export.trained import Trained


def final_card(trained: Trained, metrics: Mapping[str, Any]) -> str:
    """The card as Markdown with a YAML head.

    Args:
        trained: The run that is handed over.
        metrics: ``metrics.json``.
    """
    study = trained.study
    title = f"{plain(study.task_name)} · trial {trained.trial.number} of {plain(study.name)}, trained in full"
    return "\n".join(
        [
            *opening(trained, "autopeft", title, (*_scores(metrics), *facts(trained))),
            *_promise(metrics),
            *_seeds(metrics),
            "## Load",
            "",
            "```python",
            native_code(),
            "```",
            "",
            _said(metrics),
            "",
        ]
    )


def quality_text(found: Mapping[str, Any]) -> str:
    """A quality over seeds for people: ``0.8712 ± 0.0104 over 5 seeds``."""
    error = "" if found["error"] is None else f" ± {found['error']:.4f}"
    return f"{found['mean']:.4f}{error} over {found['runs']} seed{'s' if found['runs'] > 1 else ''}"


def _scores(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for split in ("test", "validation"):
        if metrics[split] is not None:
            yield f"{metrics['metric']} ({split})", f"{quality_text(metrics[split])}, {metrics['rows'][split]:,} rows"
    run = next(one for one in metrics["seeds"] if one["seed"] == metrics["kept_seed"])
    tested = "" if run["test"] is None else f"; it alone scores {run['test']:.4f} on the test split"
    yield "adapter in this folder", f"of seed {metrics['kept_seed']}, {metrics['kept_because']}{tested}"
    yield "rows", ", ".join(f"{count:,} {name}" for name, count in metrics["rows"].items() if count)
    yield "precision", metrics["settings"]["precision"] or "as searched"


def promise_rows(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, str]]:
    """(what, promised, measured, difference, answer) of every promised value, for people."""
    for one in metrics["promise"]:
        name, interval = one["objective"], ""
        if one["low"] is not None and one["split"]:
            interval = f" ({show(name, one['low'])} … {show(name, one['high'])})"
        error = f" ± {show(name, one['error'])}" if one["error"] is not None else ""
        difference = f"{one['difference']:+.4f}" if one["split"] else f"× {one['ratio']:.3g}" if one["ratio"] else "–"
        what = name.replace("_", " ") + (f" ({one['split']})" if one["split"] else "")
        yield (
            what,
            f"{show(name, one['promised'])}{interval}",
            f"{show(name, one['measured'])}{error}",
            difference,
            one["answer"],
        )


def _promise(metrics: Mapping[str, Any]) -> Iterator[str]:
    if not metrics["promise"]:
        return
    yield from ("## What the search promised", "")
    yield from ("| | promised | measured | difference | |", "|---|---|---|---|---|")
    yield from (f"| {' | '.join(map(plain, row))} |" for row in promise_rows(metrics))
    yield ""
    if not metrics["fresh_promise"]:
        yield from ("The promise rests on runs that also chose this configuration, which flatter it.", "")


def _seeds(metrics: Mapping[str, Any]) -> Iterator[str]:
    metric = metrics["metric"]
    yield from (
        "## Seeds",
        "",
        f"| seed | {metric} (validation) | {metric} (test) | training | |",
        "|---|---|---|---|---|",
    )
    for one in metrics["seeds"]:
        validation = "–" if metrics["validation"] is None else f"{one['values'][metric]:.4f}"
        test = "–" if one["test"] is None else f"{one['test']:.4f}"
        kept = "in this folder" if one["seed"] == metrics["kept_seed"] else ""
        yield f"| {one['seed']} | {validation} | {test} | {one['values']['train_seconds']:.1f} s | {kept} |"
    yield ""


def _said(metrics: Mapping[str, Any]) -> str:
    if metrics["test"] is None:
        return "The test split was not read."
    return "The test split was read by this training alone, and scored once, when the last seed had ended."
