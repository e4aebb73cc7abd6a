"""``autopeft train``: a chosen configuration trained in full, scored on the test split, and held to its promise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autopeft.cli.console import Database, Json, StudyName, document, note
from autopeft.errors import ConfigurationError, ExportError, NotFoundError

if TYPE_CHECKING:
    from autopeft.final import FinalSettings
    from autopeft.finishing import Chosen

Seeds = Annotated[int, typer.Option("--seeds", min=1, help="How many seeds.")]
FirstSeed = Annotated[
    int | None, typer.Option("--seed", min=0, help="The first of them (default: 1000, which no search uses).")
]
Epochs = Annotated[
    float | None, typer.Option("--epochs", min=0.01, help="Passes over the rows (default: as searched).")
]
FullData = Annotated[
    bool, typer.Option("--full-data", help="Train on validation too, and on rows that a share left out.")
]
MicroBatch = Annotated[
    int | None, typer.Option("--micro-batch", min=1, help="Most rows in one forward pass; gradients are added up.")
]
PrecisionName = Annotated[
    str | None, typer.Option("--precision", help="fp32, mixed, bf16 or fp16 (default: as searched).")
]
Cache = Annotated[str | None, typer.Option("--cache", help="off, fp32, fp16 or auto (default: as searched).")]
TrackerName = Annotated[str | None, typer.Option("--tracker", help="tensorboard, mlflow or wandb.")]
CheckpointSteps = Annotated[
    int | None,
    typer.Option("--checkpoint-steps", min=1, help="Steps between two checkpoints (default: a tenth of the run)."),
]
LmEval = Annotated[
    str | None, typer.Option("--lm-eval", help="Tasks of lm-evaluation-harness for the kept adapter, with commas.")
]
LmEvalLimit = Annotated[int | None, typer.Option("--lm-eval-limit", min=1, help="Most rows of each (default: all).")]
Processes = Annotated[int, typer.Option("--processes", min=1, help="That share every step: one a GPU, or on the CPU.")]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads of a process (default: all, shared).")
]
TaskHere = Annotated[
    str | None, typer.Option("--task", help="Where the rows of the search lie now (default: as searched).")
]
ModelHere = Annotated[str | None, typer.Option("--model", help="Where its weights lie now (default: as searched).")]


def train(
    what: Annotated[str, typer.Argument(metavar="TRIAL|DIR", help="Number of a trial, or an exported folder.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder to write (default: runs/…).")] = None,
    seeds: Seeds = 5,
    seed: FirstSeed = None,
    epochs: Epochs = None,
    full_data: FullData = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what the folder holds.")] = False,
    reproduce: Annotated[
        bool,
        typer.Option("--reproduce", help="Train the search's own run again and compare to the bit; reads no test."),
    ] = False,
    micro_batch: MicroBatch = None,
    precision: PrecisionName = None,
    cache: Cache = None,
    tracker: TrackerName = None,
    checkpoint_steps: CheckpointSteps = None,
    lm_eval: LmEval = None,
    lm_eval_limit: LmEvalLimit = None,
    processes: Processes = 1,
    threads: Threads = None,
    task: TaskHere = None,
    model: ModelHere = None,
    study: StudyName = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Train a chosen configuration in full with several seeds, score the test split once, and compare."""
    from autopeft.final import Training
    from autopeft.finishing import (
        Machine,
        found_here,
        planned,
        prepare_folder,
        read_metrics,
        reproducing,
        run,
    )

    chosen, machine = _chosen(what, study, db), Machine(processes, threads)
    settings = final_settings(seeds, seed, epochs, full_data, micro_batch, precision, cache, tracker, checkpoint_steps)
    settings = replace(settings, lm_eval=harness_tasks(lm_eval), lm_eval_limit=lm_eval_limit)
    if reproduce:
        if epochs or full_data or seed is not None or precision or micro_batch or cache or processes > 1:
            raise ConfigurationError("--reproduce trains as the search did: leave out what would change that")
        chosen, settings, machine = reproducing(chosen, machine)
    folder = (output or Path("runs") / (chosen.name + ("-reproduced" if reproduce else ""))).absolute()
    here = found_here(chosen.study, task, model)
    training = Training(chosen.configuration, chosen.provenance, folder)
    plan = prepare_folder(planned(here, [training], settings, machine), folder, resume=resume)
    if "values" not in chosen.provenance:
        note(f"{chosen.name}: the search has no full run of this trial on this model; its configuration is trained")
    note(f"training {chosen.name} with {len(settings.seeds)} seed(s) from {settings.seeds[0]}, into {folder}")
    run(plan, folder)
    metrics = read_metrics(folder)
    if as_json:
        document({"folder": str(folder), **metrics})
    else:
        print("\n".join(training_lines(metrics, folder)))
    if found := metrics.get("reproduction", {}).get("differences"):
        raise ExportError(f"not reproduced: {'; '.join(found)}; {_other_environment(metrics, chosen.provenance)}")


def harness_tasks(text: str | None) -> tuple[str, ...]:
    """The tasks of ``--lm-eval``; files by their absolute paths."""
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    return tuple(str(Path(name).absolute()) if Path(name).is_file() else name for name in names)


def final_settings(
    seeds: int,
    seed: int | None,
    epochs: float | None,
    full_data: bool,
    micro_batch: int | None,
    precision: str | None,
    cache: str | None,
    tracker: str | None,
    checkpoint_steps: int | None,
) -> FinalSettings:
    """The settings that the flags name.

    Raises:
        ConfigurationError: If a name is unknown, or the tracker's package is missing.
    """
    from autopeft.final import FRESH_SEEDS, FinalSettings
    from autopeft.regime import Regime
    from autopeft.settings import cache_mode
    from autopeft.trackers import require_tracker

    require_tracker(tracker)
    Regime(precision)  # refuses a name that is none
    first = FRESH_SEEDS if seed is None else seed
    return FinalSettings(
        tuple(range(first, first + seeds)),
        epochs,
        full_data,
        precision,
        micro_batch,
        None if cache is None else cache_mode(cache),
        tracker,
        checkpoint_steps,
    )


def training_lines(metrics: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """What came of a final training, for people."""
    from autopeft.export.final_card import promise_rows, quality_text
    from autopeft.objectives import show

    for split in ("test", "validation"):
        if metrics[split] is not None:
            rows = f"{metrics['rows'][split]:,} rows"
            yield f"{metrics['metric']} on {split:<11} {quality_text(metrics[split])}, {rows}"
    if metrics["test"] is None and "reproduction" not in metrics:
        yield "no test split: nothing that the search did not see was scored"
    for name, scores in metrics.get("lm_eval", {}).get("tasks", {}).items():
        listed = ", ".join(f"{metric} {value:.4f}" for metric, value in scores.items() if "stderr" not in metric)
        yield f"lm-eval {name:<16} {listed}"
    for name, found in metrics["costs"].items():
        yield f"{name.replace('_', ' '):<24} {show(name, found['mean'])}"
    if metrics["promise"] and "reproduction" not in metrics:
        yield ""
        yield f"{'what the search promised':<26} {'promised':>28}   {'measured':>22}   {'difference':>10}"
        for what, promised, measured, difference, answer in promise_rows(metrics):
            yield f"  {what:<24} {promised:>28}   {measured:>22}   {difference:>10}   {answer}"
        if not metrics["fresh_promise"]:
            yield "  the promise rests on runs that also chose this configuration, which flatter it"
    if metrics.get("reproduction", {}).get("differences") == []:
        yield "reproduced to the bit: metric, loss and every trained weight are those of the search"
    yield f"adapter of seed {metrics['kept_seed']} ({metrics['kept_because']}), metrics.json and card in {folder}"


def _other_environment(metrics: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    """What of the environment is otherwise than the search had it."""
    then, now = provenance.get("environment", {}), metrics["environment"]
    other = [f"{key} {now[key]}, then {then[key]}" for key in sorted(now) if key in then and then[key] != now[key]]
    threads = (provenance.get("execution") or {}).get("threads")
    if threads != metrics["threads"]:
        other.append(f"threads {metrics['threads']}, then {threads or 'not recorded'}")
    return "other here: " + ("; ".join(other) if other else "nothing that is recorded")


def _chosen(what: str, study: str | None, db: str | None) -> Chosen:
    """The trial of that number, or what a folder holds."""
    from autopeft.finishing import chosen_folder, chosen_trial
    from autopeft.settings import database_url
    from autopeft.store.overlook import Overlook

    if what.isdigit():
        with Overlook.open(database_url(db)) as reader:
            return chosen_trial(reader, study, int(what))
    if not Path(what).is_dir():
        raise NotFoundError(f"{what!r}: neither the number of a trial nor a folder that exists")
    return chosen_folder(Path(what))


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command()(train)
