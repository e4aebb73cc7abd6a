"""Final trainings as functions: what is chosen, the plan, the process that trains it, and what it left.

A plan stands in the output folder before anything is trained; whoever asks for the same again goes on from there.
Nothing here trains, and nothing reads the test split.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autopeft.api import promise_of
from autopeft.errors import BudgetError, ConfigurationError, EvaluationError, ExportError, NotFoundError
from autopeft.export.provenance import provenance
from autopeft.final import (
    LM_EVAL,
    METRICS_FILE,
    METRICS_SCHEMA,
    PLAN_FILE,
    FinalPlan,
    FinalRun,
    FinalSettings,
    Training,
    trained_as_searched,
)
from autopeft.final_front import FinalFront, Finished, final_front
from autopeft.launch import WorkerPlan, child_environment, plan_workers, worker_command
from autopeft.promise import Promise
from autopeft.proxy import stands_in
from autopeft.settings import CacheMode
from autopeft.standing import Standing, standing
from autopeft.store.overlook import Overlook
from autopeft.study import Study, Trial, TrialState
from autopeft.tasks.task import absolute_source
from search_spaces.configuration import Configuration

PASSED_ON = (2, 3, 5, 6)
"""Exit codes of the process that trains which say what is wrong with what was asked."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A configuration that somebody wants trained in full.

    Attributes:
        study: Model, data and training.
        configuration: The configuration.
        provenance: Where it comes from.
        name: For its folder.
    """

    study: Study
    configuration: Configuration
    provenance: Mapping[str, Any]
    name: str


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it is trained.

    Attributes:
        processes: That train together, a GPU each, or sharing the CPU.
        threads: CPU threads of a process; None: all, shared.
    """

    processes: int = 1
    threads: int | None = None


def chosen_trial(reader: Overlook, study: str | None, number: int) -> Chosen:
    """Trial ``number`` of a study.

    Raises:
        NotFoundError: If there is none.
        ConfigurationError: If it trains the backbone itself.
    """
    asked = reader.study(study)
    trial = reader.trial(asked.name, number)
    if trial.configuration.training.backbone:
        raise ConfigurationError(
            f"trial {number} of {asked.name} is full fine-tuning, a reference without adapters; choose another trial"
        )
    measured = trial.state is TrialState.COMPLETE and not stands_in(asked, trial.origin, trial.configuration)
    measurement = reader.measurement(asked.name, number) if measured else None
    promise = promise_of(reader, asked, number)
    if not measured and promise is not None and not promise.fresh:  # that of a proxy is none of the model
        promise = None
    found = provenance(asked, trial, measurement, "train", promise)
    return Chosen(asked, trial.configuration, found, f"{asked.name}-{number}")


def chosen_folder(folder: Path) -> Chosen:
    """What an export, or an earlier final training, holds; no database is asked.

    Raises:
        NotFoundError: If a file is missing.
        ConfigurationError: If a file cannot be read.
        ExportError: If the configuration is not the one that was exported.
    """
    found = {}
    for name in ("study.json", "configuration.json", "provenance.json"):
        try:
            found[name] = json.loads((folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise NotFoundError(f"{folder} holds no {name}: give a folder that autopeft export wrote") from error
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{folder / name}: cannot be read as JSON: {error}") from error
    configuration = Configuration.from_json(found["configuration.json"])
    origin = found["provenance.json"]
    if origin.get("digest") != configuration.digest:
        raise ExportError(f"{folder}: configuration.json was changed after the export (its digest is another)")
    study = Study.from_json(found["study.json"])
    if "ordered" in origin:  # a trial that chooses its modules chooses them again
        configuration = Configuration.from_json(origin["ordered"])
    return Chosen(study, configuration, origin, folder.resolve().name)


def found_here(study: Study, task: str | None, model: str | None) -> Study:
    """``study`` with its rows and its weights where they lie on this machine; hashes tell whether they are the same."""
    if task is not None:
        study = replace(study, task={**study.task, "source": absolute_source(task)})
    if model is not None:
        study = replace(study, model=replace(study.model, source=model))
    return study


def planned(study: Study, trainings: Sequence[Training], settings: FinalSettings, machine: Machine) -> FinalPlan:
    """The plan of ``trainings`` on this machine.

    Raises:
        ConfigurationError: If there are fewer GPUs than processes.
    """
    places = plan_workers(str(machine.processes))
    if len({place.visible_gpu for place in places}) < len(places) and places[0].visible_gpu is not None:
        raise ConfigurationError(
            f"{machine.processes} processes: this machine shows fewer GPUs; expected one a process"
        )
    threads = machine.threads or places[0].threads
    return FinalPlan(study, settings, tuple(trainings), places[0].device, threads, machine.processes)


def reproducing(chosen: Chosen, machine: Machine) -> tuple[Chosen, FinalSettings, Machine]:
    """What to train so that the number of the search comes out again: its seed, threads, cache and micro-batch.

    Raises:
        ConfigurationError: If the trial was not measured in full, so that there is no number.
    """
    origin = chosen.provenance
    if "values" not in origin:
        raise ConfigurationError(
            f"{chosen.name}: the search measured nothing in full here; there is nothing to reproduce"
        )
    execution, training = origin.get("execution") or {}, origin.get("training") or {}
    states, batch = execution.get("states"), chosen.study.fidelity.batch_size
    cache = CacheMode(states) if states in ("fp32", "fp16") else CacheMode.OFF
    micro = -(-batch // training["accumulation"]) if "accumulation" in training else None
    settings = FinalSettings((int(origin["replicate"]),), micro_batch=micro, cache=cache, reads_test=False)
    return chosen, settings, replace(machine, threads=machine.threads or execution.get("threads"))


@dataclass(frozen=True, slots=True)
class FrontOrder:
    """All members of a study's front and control, to be trained in full.

    Attributes:
        study: The study.
        searched: Where its trials stand.
        plan: Which stands in the folder; each member has a folder of its own in it.
    """

    study: Study
    searched: Standing
    plan: FinalPlan


def front_order(
    reader: Overlook,
    name: str | None,
    folder: Path,
    settings: FinalSettings,
    machine: Machine,
    task: str | None = None,
    model: str | None = None,
) -> FrontOrder:
    """What ``finalized`` is to train of a study, which stands in ``folder`` from now on.

    Raises:
        BudgetError: If the front is empty.
        ConfigurationError: If ``folder`` holds something else.
    """
    study = reader.study(name)
    trials = reader.trials(study.name)
    searched = standing(study, trials)
    if not searched.front:
        raise BudgetError(f"the front of {study.name} is empty: there is nothing to train; autopeft resume goes on")
    members = _members(searched)
    chosen = {one.number: chosen_trial(reader, study.name, one.number) for one in members}
    trainings = [
        Training(one.configuration, chosen[one.number].provenance, folder / f"trial-{one.number}") for one in members
    ]
    plan = planned(found_here(study, task, model), trainings, settings, machine)
    return FrontOrder(study, searched, prepare_folder(plan, folder, resume=True, grows=True))


def finalized(order: FrontOrder, folder: Path) -> FinalFront:
    """The final front of a study: what of ``order`` is not done is trained first.

    Raises:
        ConfigurationError: If its members were scored on different test rows.
    """
    run(order.plan, folder)
    members = _members(order.searched)
    found = {one.number: read_metrics(folder / f"trial-{one.number}") for one in members}
    _require_one_test(found, folder)
    return final_front(order.study, order.searched, [_finished(one, found[one.number]) for one in members])


def _members(searched: Standing) -> list[Trial]:
    return [*searched.front, *searched.control]


def _finished(trial: Trial, metrics: Mapping[str, Any]) -> Finished:
    origin = metrics["searched_promise"]
    promise = None if origin is None else Promise.from_json(origin)
    runs = tuple(FinalRun.from_json(one) for one in metrics["seeds"])
    steps, full = int(metrics["training"]["steps"]), bool(metrics["settings"]["full_data"])
    harness = metrics.get(LM_EVAL, {}).get("tasks", {})
    return Finished(trial, runs, promise, trained_as_searched(promise, steps, full_data=full), harness)


def _require_one_test(found: Mapping[int, Mapping[str, Any]], folder: Path) -> None:
    """Nothing, if all members were scored on the same test rows."""
    hashes: dict[str | None, list[int]] = {}
    for number, metrics in found.items():
        hashes.setdefault(metrics["test_sha256"], []).append(number)
    if len(hashes) > 1:
        few = min(hashes.values(), key=len)
        raise ConfigurationError(
            f"{folder}: the test rows changed between members (trials {', '.join(map(str, few))} have others than the "
            "rest); remove metrics.json from the folders of those that saw the wrong ones, and start again"
        )


def prepare_folder(plan: FinalPlan, folder: Path, *, resume: bool, grows: bool = False) -> FinalPlan:
    """The plan to follow, which stands in ``folder`` from now on.

    Args:
        plan: What is asked.
        folder: Output.
        resume: Whether an earlier attempt in it is gone on with.
        grows: Whether other configurations may have come to it since.

    Raises:
        ConfigurationError: If the folder is in use, holds another training, or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(one.name != PLAN_FILE for one in folder.iterdir())):
        file = folder / PLAN_FILE
        if not file.is_file():
            raise ConfigurationError(f"output {folder}: is not empty and holds no final training; name another with -o")
        earlier = FinalPlan.from_json(json.loads(file.read_text(encoding="utf-8")))
        if not resume:
            state = "a finished" if (folder / METRICS_FILE).is_file() else "an unfinished"
            raise ConfigurationError(f"output {folder}: holds {state} training; add --resume, or name another with -o")
        _require_same(plan, earlier, folder, grows=grows)
        plan = replace(plan, threads=earlier.threads)
    draft = folder / f"{PLAN_FILE}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(plan.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        draft.replace(folder / PLAN_FILE)
    except OSError as error:
        raise ConfigurationError(f"output {folder}: cannot be written: {error.strerror or error}") from error
    return plan


def _require_same(asked: FinalPlan, earlier: FinalPlan, folder: Path, *, grows: bool) -> None:
    """Nothing, if both train the same: where it lies and on how many processes may differ."""
    wanted, found = asked.settings.to_json(), earlier.settings.to_json()
    other = [f"{name} {found[name]}, not {wanted[name]}" for name in wanted if wanted[name] != found[name]]
    plans = [[one.configuration.digest for one in plan.trainings] for plan in (asked, earlier)]
    if plans[0] != plans[1] and not grows:
        other.append("other configurations")
    if asked.study.fidelity != earlier.study.fidelity or asked.study.name != earlier.study.name:
        other.append("another study")
    if other:
        raise ConfigurationError(f"output {folder}: holds another training ({'; '.join(other)}); name another with -o")


def run(plan: FinalPlan, folder: Path) -> None:
    """Trains what is not done in ``plan``, which stands in ``folder``, in processes of their own.

    Raises:
        EvaluationError: If that fails; what was trained so far is kept.
    """
    if all((one.output / METRICS_FILE).is_file() for one in plan.trainings):
        return
    place = WorkerPlan(plan.device, plan.threads)
    environment = child_environment("", place)
    source = folder / f"{PLAN_FILE}.part"
    source.write_text(json.dumps(plan.to_json()), encoding="utf-8")
    try:
        done = subprocess.run(_command(plan, source), env=environment | {"PYTHONSAFEPATH": "1"}, check=False)
    finally:
        source.unlink(missing_ok=True)
    if done.returncode != 0:
        error = EvaluationError(
            f"training ended with exit code {done.returncode}; its messages stand above. What is done is kept: "
            "autopeft train with --resume, or the same autopeft finalize, goes on"
        )
        error.exit_code = done.returncode if done.returncode in PASSED_ON else error.exit_code
        raise error


def _command(plan: FinalPlan, source: Path) -> list[str]:
    arguments = ["train", "--plan", str(source)]
    if plan.processes == 1:
        return worker_command(*arguments)
    launch = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--no-python"]
    return [*launch, "--nproc-per-node", str(plan.processes), *worker_command(*arguments)]


def read_metrics(folder: Path) -> dict[str, Any]:
    """``metrics.json`` of a finished training.

    Raises:
        NotFoundError: If there is none.
        ConfigurationError: If it is of another schema.
    """
    try:
        found: dict[str, Any] = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFoundError(f"{folder}: no finished training") from error
    if found.get("schema") != METRICS_SCHEMA:
        raise ConfigurationError(
            f"{folder / METRICS_FILE}: schema {found.get('schema')!r}, expected {METRICS_SCHEMA!r}"
        )
    return found
