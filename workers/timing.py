"""Measures what training steps and scored rows cost here, of a few configurations on the study's own rows.

For ``--dry-run``: some steps, not a benchmark. ``autopeft.price`` makes prices of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from autopeft.price import Measured, calibration_plans
from autopeft.proxy import carried, on_proxy
from autopeft.study import Study
from search_spaces.configuration import Configuration
from search_spaces.cost import frozen_layer_count
from workers.backbones import Resident, load_resident, open_device
from workers.batches import Rows, training_order
from workers.evaluate import adapted
from workers.scoring import SCORING_BATCH, score_rows
from workers.training import memory_errors, train

STEPS = 5
"""Timed steps of a configuration, their batches spread over the lengths that there are …"""

WARM_UP_STEPS = 1
"""… after so many that are not."""

SCORED_ROWS = 3 * SCORING_BATCH

Clock = Callable[[], float]


def time_step(plan: Mapping[str, Any], clock: Clock = time.perf_counter) -> dict[str, Any]:
    """``measured`` (configuration, ``step_seconds``, ``row_seconds``), ``load_seconds``, ``device``; ``truncation``.

    Loading counts from the start of the process, so the libraries' own seconds are in it.

    Args:
        plan: ``study``, and if given ``device``.
        clock: Tells seconds.

    Raises:
        AutopeftError: If the study's model or data cannot be loaded.
    """
    study = Study.from_json(plan["study"])
    trained = on_proxy(study)
    device = str(plan.get("device") or "cpu")
    imported, started = time.process_time(), time.perf_counter()
    resident = load_resident(trained, open_device(device))
    load_seconds = imported + time.perf_counter() - started
    chosen = calibration_plans(study)
    measured = [measure(trained, resident, carried(study, plan), clock) for plan in chosen]
    return {
        "measured": [
            {
                "configuration": plan.to_json(),
                "step_seconds": m.step_seconds,
                "row_seconds": m.row_seconds,
            }
            for plan, m in zip(chosen, measured, strict=True)
        ],
        "load_seconds": load_seconds,
        "device": device,
        "truncation": resident.truncation,
    }


def measure(study: Study, resident: Resident, configuration: Configuration, clock: Clock) -> Measured:
    """Seconds of a step and of a scored row of ``configuration``, the states below it kept as in a trial."""
    order = spread_batches(study, resident)
    train_rows = resident.train.take(np.unique(order))
    where = {row: index for index, row in enumerate(np.unique(order).tolist())}
    order = np.array([[where[row] for row in batch] for batch in order.tolist()])
    sample = replace(resident, train=train_rows, validation=resident.validation.take(_spread_rows(resident)))
    sample = sample.beginning_at(frozen_layer_count(configuration))
    moments: list[float] = []
    with memory_errors(), adapted(resident.classifier, configuration, seed=study.seed):
        train(resident.classifier, sample.train, order, 1e-4, lambda _done: moments.append(clock()))
        started = clock()
        score_rows(resident.classifier, sample.validation, study.metric)
        scored = (clock() - started) / len(sample.validation)
    return Measured(configuration, (moments[-1] - moments[WARM_UP_STEPS - 1]) / STEPS, scored)


def spread_batches(study: Study, resident: Resident) -> Rows:
    """Row numbers of the steps: the batches of a pass at even quantiles of their length, the middle one first."""
    lengths, size = resident.train.lengths, study.fidelity.batch_size
    batches = training_order(lengths, size, max(STEPS, len(lengths) // size), study.seed, 0)
    by_length = batches[np.argsort(lengths[batches].max(1), kind="stable")]
    quantiles = (np.arange(STEPS) + 0.5) / STEPS
    timed = by_length[(quantiles * len(by_length)).astype(int)]
    return np.concatenate([by_length[len(by_length) // 2][None].repeat(WARM_UP_STEPS, 0), timed])


def _spread_rows(resident: Resident) -> Rows:
    """Rows to score, whose lengths are spread like those of the whole split."""
    rows = resident.validation
    by_length = np.argsort(rows.lengths, kind="stable")
    chosen: Rows = by_length[np.linspace(0, len(rows) - 1, min(len(rows), SCORED_ROWS)).astype(int)]
    return chosen
