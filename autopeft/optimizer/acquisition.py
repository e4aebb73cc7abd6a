"""Expected hypervolume improvement in closed form, for any number of objectives, exact and learned mixed.

The first learned objective is the height over the others, each minimised on [0, 1]. The front cuts the others' box
into cells j of constant height a_j, and with independent Gaussian objectives
``EHVI(x) = sum_j prod_d (E[(u_jd - y_d)+] - E[(l_jd - y_d)+]) (E[(y_0 - a_j)+] - E[(y_0 - 1)+])``,
where an exact y_d has no doubt, so that its factor is a clipped width. No sampling. A front of k members makes up to
(k + 1)^(m - 1) cells: for three objectives nothing, for five a lot.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx, ndtr

Array = NDArray[np.float64]

CHUNK = 2_000_000
"""Candidates times cells held at a time."""


class Cells:
    """The best height so far over every cell of the other objectives' box.

    Args:
        heights: Of the points to improve on, shape [k]; at most ``ceiling`` counts.
        others: Their other objectives, minimised, shape [k, m - 1]; points at 1 or beyond are ignored.
        ceiling: Best possible height; infinite where none is known.
        floor: Best possible value of the others; minus infinity where none is known.
    """

    def __init__(self, heights: Array, others: Array, ceiling: float = 1.0, floor: float = 0.0) -> None:
        self._ceiling = ceiling
        heights, others = np.minimum(heights, ceiling), np.maximum(others, floor)
        inside = (heights > 0) & (others < 1).all(axis=1)
        heights, others = heights[inside], others[inside]
        self._edges = [np.unique([floor, *column, 1.0]) for column in others.T]
        best = np.zeros([len(edges) - 1 for edges in self._edges] or [1])
        places = [np.searchsorted(edges, column) for edges, column in zip(self._edges, others.T, strict=True)]
        np.maximum.at(best, tuple(places) or np.zeros(len(heights), dtype=int), heights)
        for axis in range(len(self._edges)):
            best = np.maximum.accumulate(best, axis=axis)
        self.levels, inverse = np.unique(best, return_inverse=True)
        self._steps = inverse.ravel()
        self._best = best

    def volume(self) -> float:
        """The hypervolume; finite only where the best possible values are known."""
        volume = self._best
        for edges in reversed(self._edges):
            volume = volume @ np.diff(edges)
        return float(volume.sum())

    def improvement(self, mean: Array, deviation: Array, known: Array, learned: Array, doubt: Array) -> Array:
        """Expected gain of hypervolume, shape [n].

        Args:
            mean: Of the height, shape [n].
            deviation: Its standard deviation > 0, shape [n].
            known: The exact ones of the others, which come first, shape [n, e].
            learned: Means of the rest, shape [n, m - 1 - e].
            doubt: Their standard deviations, shape [n, m - 1 - e].
        """
        over = expected_improvement(mean, deviation, np.array([self._ceiling])) if self._ceiling < math.inf else 0.0
        gains = np.maximum(expected_improvement(mean, deviation, self.levels) - over, 0.0)
        widths = [_widths(edges, column) for edges, column in zip(self._edges, known.T, strict=False)]
        rest = self._edges[known.shape[1] :]
        widths += [_expected_widths(edges, *columns) for edges, *columns in zip(rest, learned.T, doubt.T, strict=True)]
        rows = max(1, CHUNK // len(self._steps))
        parts = [
            _total([width[start : start + rows] for width in widths], gains[start : start + rows, self._steps])
            for start in range(0, len(mean), rows)
        ]
        return np.concatenate(parts) if parts else np.empty(0)


def _total(widths: list[Array], gains: Array) -> Array:
    """Gains times the volumes of their cells, summed over cells: shape [n]."""
    volumes = np.ones((len(gains), 1))
    for width in widths:
        volumes = (volumes[:, :, None] * width[:, None, :]).reshape(len(gains), -1)
    total: Array = (volumes * gains).sum(axis=1)
    return total


def _widths(edges: Array, values: Array) -> Array:
    """The part of each step of ``edges`` that lies above each of ``values``, shape [n, steps]."""
    widths: Array = np.maximum(0.0, edges[1:] - np.maximum(edges[:-1], values[:, None]))
    return widths


def _expected_widths(edges: Array, mean: Array, deviation: Array) -> Array:
    """The mean of ``_widths`` for normal values, shape [n, steps]."""
    finite = edges[np.isfinite(edges)]
    above = expected_improvement(-mean, deviation, -finite)
    if len(finite) < len(edges):
        above = np.hstack([np.zeros((len(mean), 1)), above])
    widths: Array = np.maximum(0.0, above[:, 1:] - above[:, :-1])
    return widths


def expected_improvement(mean: Array, deviation: Array, levels: Array) -> Array:
    """E[(Y - level)+] for Y normal, shape [n, steps], for ``mean`` and ``deviation`` of shape [n].

    Far below a level it falls as the exact tail does, without the cancellation of the textbook form.
    """
    z = (mean[:, None] - levels) / deviation[:, None]
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    mills = math.sqrt(math.pi / 2) * erfcx(np.maximum(-z, -1.0) / math.sqrt(2))
    gain = np.where(z < -1, density * (1 + z * mills), z * ndtr(z) + density)
    improvement: Array = deviation[:, None] * np.maximum(gain, 0.0)
    return improvement
