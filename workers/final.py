"""``autopeft train``: the chosen configuration trained in full, scored once on the test split, and saved.

The only place that reads the test split.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from autopeft.adapters.saving import write_whole
from autopeft.study import PARAMETERS, Fidelity, Study
from search_spaces.configuration import Configuration
from search_spaces.cost import trainable_parameters
from workers.backbones import Resident, encode_split, load_resident, open_device
from workers.batches import TaskRows, training_order
from workers.evaluate import adapted, calibration, save
from workers.scoring import score_rows
from workers.seeds import initial_seed
from workers.training import memory_errors, train

METRICS_FILE = "metrics.json"
PROGRESS_SECONDS = 2.0


def train_in_full(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics, which are also written to ``metrics.json`` in the plan's ``output``, after all other files.

    Args:
        plan: ``study``, ``configuration``, ``output``; if given ``epochs`` or ``steps``, ``seed`` (replicate of data
            order and initial values), ``device``.

    Raises:
        AutopeftError: If it cannot be trained.
    """
    study = Study.from_json(plan["study"])
    configuration = Configuration.from_json(plan["configuration"])
    configuration.validate(study.backbone)
    seed, folder = int(plan.get("seed") or 0), Path(plan["output"])
    resident = load_resident(study, open_device(_device_name(plan)))
    test = _encoded_test(study, resident)  # read before the training, which would be lost if it cannot be read
    study = replace(study, fidelity=_fidelity(study, plan, len(resident.train)))
    order = training_order(len(resident.train), study.fidelity.batch_size, study.fidelity.steps, study.seed, seed)
    given = calibration(resident.classifier, resident.train, order)
    initial, started = initial_seed(study.seed, seed, configuration.digest), time.perf_counter()
    with memory_errors(), adapted(resident.classifier, configuration, initial, given):
        rate = configuration.training.learning_rate
        curve = train(resident.classifier, resident.train, order, rate, _progress(len(order)))
        train_seconds = time.perf_counter() - started
        metrics = {
            "schema": "autopeft.metrics/1",
            "study": study.name,
            "metric": study.metric,
            **_scores(study, resident, test),
            PARAMETERS: trainable_parameters(configuration, study.backbone),
            "head_parameters": sum(p.numel() for p in resident.classifier.head_parameters().values()),
            "steps": study.fidelity.steps,
            "seed": seed,
            "train_seconds": train_seconds,
            "curve": curve,
            "sha256": save(resident.classifier, configuration, folder),
        }
    write_whole(folder / METRICS_FILE, (json.dumps(metrics, indent=1, allow_nan=False) + "\n").encode())
    return metrics


def _encoded_test(study: Study, resident: Resident) -> TaskRows | None:
    task = resident.task
    return None if task.test_reader is None else encode_split(study, task, task.read_test(), resident.classifier)


def _scores(study: Study, resident: Resident, test: TaskRows | None) -> dict[str, Any]:
    """Score and loss on validation and, if the task has one, on the test split."""
    found: dict[str, Any] = {"validation_rows": len(resident.validation), "test_rows": 0 if test is None else len(test)}
    for name, rows in (("validation", resident.validation), ("test", test)):
        scored = None if rows is None else score_rows(resident.classifier, rows, study.metric)
        found |= {name: scored and scored.value, f"{name}_loss": scored and scored.loss}
    return found


def _fidelity(study: Study, plan: Mapping[str, Any], row_count: int) -> Fidelity:
    if plan.get("steps"):
        return replace(study.fidelity, steps=int(plan["steps"]))
    if plan.get("epochs"):
        steps = math.ceil(float(plan["epochs"]) * row_count / study.fidelity.batch_size)
        return replace(study.fidelity, steps=max(1, steps))
    return study.fidelity


def _device_name(plan: Mapping[str, Any]) -> str:
    return str(plan.get("device") or ("cuda:0" if torch.cuda.is_available() else "cpu"))


def _progress(steps: int) -> Callable[[int], None]:
    """Says on standard error, every few seconds and at the end, how far the training is."""
    started = said = time.monotonic()

    def show(done: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= PROGRESS_SECONDS or done == steps:
            said = now
            left = (now - started) / done * (steps - done)
            print(f"step {done} of {steps}, about {left:.0f} s left", file=sys.stderr, flush=True)

    return show
