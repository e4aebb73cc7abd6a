"""From a history to a belief: which rows each surrogate learns from, and what a new point has to improve on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from autopeft.optimizer.belief import Belief, Reached
from autopeft.optimizer.ground import Ground
from autopeft.optimizer.history import History
from autopeft.optimizer.proposer import point_in
from autopeft.optimizer.surrogate import GaussianProcess, Samples
from search_spaces.space import Point

Array = NDArray[np.float64]

SHORTEST_SHARE = 0.01
"""Share of the training that lies as far from full training as one end of a dimension from the other."""


def believe(history: History) -> Belief[Point]:
    """The belief after ``history``, whose pending points are believed.

    Args:
        history: With at least one observation.
    """
    aims = history.aims
    quality = aims.axes[aims.quality]
    shorter = [
        (point, rung.share, 1 - float(quality.minimised([rung.observation.values[aims.quality]])[0]))
        for rung in history.demands.lower_rungs
        if aims.quality in rung.observation.values
        and (point := point_in(history.space, rung.observation.configuration)) is not None
    ]
    heights = 1 - quality.minimised(history.measured(aims.quality))
    reached, origins = _reached(history)
    belief = Belief(
        Ground(history),
        GaussianProcess.fit(_of_quality(history, heights, shorter)),
        tuple(_process(history, aims.axes[name].minimised(history.measured(name))) for name in aims.learned),
        tuple(limit for name in aims.limits if (limit := _limit(history, name)) is not None),
        reached,
        origins,
        frozenset(history.points),
    )
    return belief.believing(history.pending)


def _process(history: History, values: Array) -> GaussianProcess:
    if not np.isfinite(values).any():
        # nothing is measured yet: somewhere on the axis
        values = np.where(np.arange(len(values)) == 0, 0.5, np.nan)
    return GaussianProcess.fit(_samples(history, values))


def _limit(history: History, name: str) -> tuple[GaussianProcess, float] | None:
    """The surrogate of a measured limit, on a log scale where that exists; None before one is measured."""
    values, limit = np.array(history.measured(name)), history.aims.limits[name]
    if not np.isfinite(values).any():
        return None
    if limit > 0 and np.nanmin(values) > 0:
        values, limit = np.log(values), math.log(limit)
    return _process(history, values), limit


def _of_quality(history: History, heights: Array, shorter: Sequence[tuple[Point, float, float]]) -> Samples:
    """The samples of the quality, with what is known of it beforehand."""
    ground = Ground(history)
    samples = _samples(history, heights, shorter)
    return replace(samples, decisive=ground.decisive + bool(shorter), growing=ground.growing)


def _samples(history: History, values: Array, shorter: Sequence[tuple[Point, float, float]] = ()) -> Samples:
    """One row a point and share of the training; the share is a feature only where there are several."""
    groups: dict[tuple[Point, float], list[float]] = {}
    for point, value in zip(history.points, values.tolist(), strict=True):
        if math.isfinite(value):
            groups.setdefault((point, 1.0), []).append(value)
    for point, share, value in shorter:
        groups.setdefault((point, share), []).append(value)
    features = Ground(history).features([point for point, _ in groups])
    if shorter:
        shares = np.array([share for _, share in groups])
        features = np.column_stack([features, 1 - np.log(shares) / math.log(SHORTEST_SHARE)])
    return Samples.grouped(features, list(groups.values()))


def _reached(history: History) -> tuple[Reached, tuple[Point, ...]]:
    """Mean of the repeats of every point that counts and keeps the measured limits."""
    rows, values = history.minimised()
    keeps = history.keeps_measured_limits()
    groups: dict[Point, list[Array]] = {}
    for row, value in zip(rows.tolist(), values, strict=True):
        if keeps[row] and history.observations[row].counts:
            groups.setdefault(history.points[row], []).append(value)
    means = np.array([np.mean(group, axis=0) for group in groups.values()]).reshape(len(groups), values.shape[1])
    return Reached(1 - means[:, 0], means[:, 1:]), tuple(groups)
