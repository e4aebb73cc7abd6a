"""Measures what a training step and a scored row cost here, on a mid-size configuration and the study's own rows.

For ``--dry-run`` and the ETA: a few steps, not a benchmark.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from autopeft.study import Study
from search_spaces.configuration import Configuration, uniform
from search_spaces.cost import trainable_parameters
from search_spaces.methods.lora import Lora
from workers.backbones import Resident, load_resident, open_device
from workers.batches import training_order
from workers.evaluate import adapted
from workers.scoring import SCORING_BATCH, score_rows
from workers.training import memory_errors, train

STEPS = 8
WARM_UP_STEPS = 2
SCORED_ROWS = 3 * SCORING_BATCH


def time_step(plan: Mapping[str, Any]) -> dict[str, Any]:
    """``step_seconds``, ``evaluate_seconds_per_row``, ``load_seconds`` and ``device``, measured now.

    Loading counts from the start of the process, so the libraries' own seconds are in it.

    Args:
        plan: ``study``, and if given ``device``.

    Raises:
        AutopeftError: If the study's model or data cannot be loaded.
    """
    study = Study.from_json(plan["study"])
    device = str(plan.get("device") or "cpu")
    imported, started = time.process_time(), time.perf_counter()
    resident = load_resident(study, open_device(device))
    load_seconds = imported + time.perf_counter() - started
    with memory_errors(), adapted(resident.classifier, middle_configuration(study), seed=study.seed):
        return {
            "step_seconds": _step_seconds(study, resident),
            "evaluate_seconds_per_row": _scoring_seconds(study, resident),
            "load_seconds": load_seconds,
            "device": device,
        }


def middle_configuration(study: Study) -> Configuration:
    """The largest uniform LoRA on query and value that half the budget pays for, in every layer; at least rank 1."""
    sites = [site for site in study.backbone.roles if site in ("query", "value", "qkv")]
    candidates = [uniform(study.backbone, sites, Lora(rank, 2.0 * rank), 1e-4) for rank in (1, 2, 4, 8, 16, 32)]
    affordable = [c for c in candidates if 2 * trainable_parameters(c, study.backbone) <= study.budget.parameters]
    return affordable[-1] if affordable else candidates[0]


def _step_seconds(study: Study, resident: Resident) -> float:
    moments = [time.perf_counter()]
    order = training_order(len(resident.train), study.fidelity.batch_size, STEPS + WARM_UP_STEPS, study.seed, 0)
    train(resident.classifier, resident.train, order, 1e-4, lambda _done: moments.append(time.perf_counter()))
    return (moments[-1] - moments[WARM_UP_STEPS]) / STEPS


def _scoring_seconds(study: Study, resident: Resident) -> float:
    """Seconds a row, on rows whose lengths are spread like those of the whole split."""
    rows = resident.validation
    by_length = np.argsort(rows.lengths, kind="stable")
    count = min(len(rows), SCORED_ROWS)
    chosen = by_length[np.linspace(0, len(rows) - 1, count).astype(int)]
    sample = rows.take(chosen)
    started = time.perf_counter()
    score_rows(resident.classifier, sample, study.metric)
    return (time.perf_counter() - started) / count
