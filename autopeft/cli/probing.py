"""``autopeft importance``, ``autopeft select`` and ``autopeft probes``: where adapters matter, learned and kept."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from autopeft.cli import search_options as asked
from autopeft.cli.console import Database, Json, document, note
from autopeft.errors import ConfigurationError
from search_spaces.schedule import UpdateSchedule
from search_spaces.selection import Selection

if TYPE_CHECKING:
    from autopeft.probe import Probe

_WHAT, _HOW, _DATA, _RUN = "What", "How", "Data and training", "Running"

Modules = Annotated[
    str | None,
    typer.Option("--modules", help="Sites by commas, e.g. query,value (default: all).", rich_help_panel=_WHAT),
]
Rank = Annotated[int, typer.Option("--rank", "-r", min=1, help="Rank of LoRA at each of them.", rich_help_panel=_WHAT)]
Rate = Annotated[
    float | None, typer.Option("--learning-rate", help="Of the weights (default: the control's).", rich_help_panel=_HOW)
]
Repeats = Annotated[int, typer.Option("--repeats", min=1, help="Runs whose scores are averaged.", rich_help_panel=_HOW)]
Steps = Annotated[
    int | None,
    typer.Option("--steps", help="Of a run (default: a tenth of a trial's, at least 100).", rich_help_panel=_DATA),
]
Name = Annotated[
    str | None, typer.Option("--name", help="Name of the probe (default: the next free one).", rich_help_panel=_RUN)
]


def _run(
    how: UpdateSchedule | Selection,
    rank: int,
    *,
    model: asked.Model = None,
    task: asked.Task = None,
    modules: Modules = None,
    learning_rate: Rate = None,
    repeats: Repeats = 1,
    steps: Steps = None,
    train_rows: asked.TrainRows = None,
    batch_size: asked.BatchSize = None,
    max_length: asked.MaxLength = None,
    seed: asked.Seed = None,
    name: Name = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Trains a probe and keeps it. Its keywords are the options that both commands have."""
    from autopeft.probing import ProbeRequest, plan, run
    from autopeft.settings import database_url, merge
    from autopeft.store import Store

    sites = [site.strip() for site in modules.split(",") if site.strip()] if modules else None
    request = ProbeRequest(how, rank, sites, learning_rate, repeats, name)
    rows = {"train_rows": train_rows, "batch_size": batch_size, "max_length": max_length}
    settings, _ = merge({"model": model, "task": task, "steps": steps, "seed": seed, **rows})
    planned = plan(settings, request)
    with Store.open(database_url(db), create=True) as store:
        for line in planned.notes:
            note(line)
        probe = run(store, settings, request, planned)
    _show(probe, as_json)
    note(f"kept as {probe.name}: autopeft search --prior {probe.name}")


def _with_the_options_of_a_run(command: Callable[..., None]) -> Callable[..., None]:
    """``command``, which takes its own options and hands the rest to ``_run``, with all of them in its signature."""
    own = [p for p in inspect.signature(command).parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    shared = [p for p in inspect.signature(_run).parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    hints = get_type_hints(_run, include_extras=True) | get_type_hints(command, include_extras=True)
    first, rest = shared[:3], shared[3:]
    ordered = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[p.name]) for p in (*first, *own, *rest)]

    @wraps(command)
    def run(**given: Any) -> None:
        command(**given)

    run.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in ordered}
    return run


@_with_the_options_of_a_run
def importance(
    rank: Rank = 1,
    update_fraction: Annotated[
        float, typer.Option("--update-fraction", help="Share of the layers that a step updates.", rich_help_panel=_HOW)
    ] = 1.0,
    suppressed_fraction: Annotated[
        float, typer.Option("--suppressed-fraction", help="Share that a probe suppresses.", rich_help_panel=_HOW)
    ] = 0.5,
    suppression_factor: Annotated[
        float, typer.Option("--suppression-factor", help="What their response is multiplied by.", rich_help_panel=_HOW)
    ] = 0.25,
    interval: Annotated[int, typer.Option("--interval", help="Steps between probes.", rich_help_panel=_HOW)] = 10,
    candidates: Annotated[
        int, typer.Option("--candidates", help="Sets of layers that are compared.", rich_help_panel=_HOW)
    ] = 5,
    step_size: Annotated[
        float, typer.Option("--step-size", help="How far a probe moves the importance.", rich_help_panel=_HOW)
    ] = 2.0,
    **run: Any,
) -> None:
    """Learn the importance of each layer (IST), and keep it.

    Unlike a trial's schedule, a probe updates every layer at every step: it is to learn, not to save memory.
    """
    schedule = UpdateSchedule(update_fraction, suppressed_fraction, suppression_factor, interval, candidates, step_size)
    _run(schedule, rank, **run)


@_with_the_options_of_a_run
def select(
    rank: Rank = 4,
    ratio: Annotated[float, typer.Option("--ratio", help="Share of the modules kept.", rich_help_panel=_HOW)] = 0.5,
    scope: Annotated[
        str, typer.Option("--scope", help="row: of each layer; global: of all.", rich_help_panel=_HOW)
    ] = "row",
    relaxation: Annotated[
        str, typer.Option("--relaxation", help="sigmoid, or softmax over a layer.", rich_help_panel=_HOW)
    ] = "sigmoid",
    order: Annotated[int, typer.Option("--order", help="1, or 2 (DARTS).", rich_help_panel=_HOW)] = 1,
    gate_rate: Annotated[
        float, typer.Option("--gate-rate", help="Learning rate of the gates.", rich_help_panel=_HOW)
    ] = 0.03,
    **run: Any,
) -> None:
    """Learn which modules matter (DiffoRA's matrix), cut it, and keep it."""
    _run(Selection(ratio, scope, relaxation, order, gate_rate=gate_rate), rank, **run)


def probes(
    name: Annotated[
        str | None, typer.Argument(help="Name of a probe, or a kind for its latest (default: all).")
    ] = None,
    as_space: Annotated[
        bool, typer.Option("--space", help="As a space of the cuts of its matrix: YAML for search --space FILE.")
    ] = False,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """The probes that are kept, or one of them."""
    from autopeft.settings import database_url
    from autopeft.store.reader import Reader

    if as_space and name is None:
        raise ConfigurationError("--space needs the name of a probe: autopeft probes selection --space > cuts.yaml")
    with Reader.open(database_url(db)) as reader:
        if name is not None and as_space:
            _show_space(reader.probe(name))
            return
        if name is not None:
            _show(reader.probe(name), as_json)
            return
        kept = [reader.probe(each) for each in reader.probe_names()]
    if as_json:
        document({"schema": "autopeft.probes/1", "probes": [probe.to_json() for probe in kept]})
        return
    for probe in kept:
        print(f"{probe.name:<28} {probe.kind:<11} {probe.task} on {probe.model}, seed {probe.seed} × {probe.repeats}")


def _show_space(probe: Probe) -> None:
    """The cuts of its matrix as a file of ``autopeft search --space``; the task says the range of learning rates."""
    import yaml

    from autopeft.probe import LAYER
    from search_spaces.named_spaces import stored_cuts

    if LAYER in probe.scores:
        raise ConfigurationError(f"probe {probe.name}: scores of whole layers; a matrix is learned by autopeft select")
    definition = stored_cuts(f"cuts-of-{probe.name}", probe.scores, (1e-3, 1e-3)).to_json()
    del definition["learning_rate"], definition["layers"]
    print(f"# cuts of probe {probe.name}, SHA-256 {probe.sha256}")
    print(yaml.safe_dump(definition, sort_keys=False, default_flow_style=None), end="")


def _show(probe: Probe, as_json: bool) -> None:
    if as_json:
        document({**probe.to_json(), "sha256": probe.sha256})
        return
    print(f"probe     {probe.name}: {probe.kind} of {probe.task} on {probe.model}")
    print(f"settings  {', '.join(f'{name} {value}' for name, value in probe.settings.items())}")
    print(
        f"seed      {probe.seed} × {probe.repeats}, held out {probe.split_sha256[:12]}…, SHA-256 {probe.sha256[:12]}…"
    )
    print()
    kept = {(layer, site) for layer, site in probe.details.get("kept", ())}
    label = max(len("layer"), *(len(site) for site in probe.scores))
    print("layer".ljust(label) + "".join(f"{layer:>8}" for layer in range(probe.layer_count)))
    for site, row in probe.scores.items():
        name = "importance" if site == "layer" else site
        print(name.ljust(label) + "".join(_cell(value, (layer, site) in kept) for layer, value in enumerate(row)))
    if "margins" in probe.details:
        print(f"kept are those with *; margin between the last kept and the first dropped: {_margins(probe)}")


def _cell(value: float | None, kept: bool) -> str:
    return ("–" if value is None else f"{value:.3f}{'*' if kept else ''}").rjust(8)


def _margins(probe: Probe) -> str:
    margins: Sequence[float | None] = probe.details["margins"]
    return ", ".join("nothing dropped" if margin is None else f"{margin:.4f}" for margin in margins)


def register(app: typer.Typer) -> None:
    """Adds the commands to ``app``."""
    for command in (importance, select, probes):
        app.command()(command)
