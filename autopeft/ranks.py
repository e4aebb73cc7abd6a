"""How well one measure orders what another orders: Kendall's tau-b and Spearman's rho, with bootstrap intervals.

Ties count as in tau-b (Kendall 1945) and as mean ranks. The intervals resample the items (percentile bootstrap).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FEWEST = 3
"""Items below which no order says anything."""

RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class RankAgreement:
    """Agreement of two orders.

    Attributes:
        count: Items in both.
        kendall: Tau-b, in [-1, 1].
        kendall_interval: Ends that hold it with the confidence of ``CONFIDENCE``.
        spearman: Rho, in [-1, 1].
        spearman_interval: Likewise.
    """

    count: int
    kendall: float
    kendall_interval: tuple[float, float]
    spearman: float
    spearman_interval: tuple[float, float]

    @property
    def text(self) -> str:
        """For people."""
        return (
            f"of {self.count} configurations trained on both: Kendall {self.kendall:.2f} "
            f"[{self.kendall_interval[0]:.2f}, {self.kendall_interval[1]:.2f}], Spearman {self.spearman:.2f} "
            f"[{self.spearman_interval[0]:.2f}, {self.spearman_interval[1]:.2f}]"
        )

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "count": self.count,
            "kendall": self.kendall,
            "kendall_interval": list(self.kendall_interval),
            "spearman": self.spearman,
            "spearman_interval": list(self.spearman_interval),
            "confidence": CONFIDENCE,
        }


def rank_agreement(one: Array, other: Array, generator: np.random.Generator) -> RankAgreement | None:
    """The agreement of two measures of the same items, shape [n] each; None for too few, or where one ties all."""
    count = len(one)
    if count < FEWEST or min(np.ptp(one), np.ptp(other)) == 0:
        return None
    draws = generator.integers(count, size=(RESAMPLES, count))
    taus, rhos = kendall(one[draws], other[draws]), spearman(one[draws], other[draws])
    ends = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
    low_high = [tuple(float(end) for end in np.nanquantile(found, ends)) for found in (taus, rhos)]
    return RankAgreement(
        count,
        float(kendall(one, other)),
        (low_high[0][0], low_high[0][1]),
        float(spearman(one, other)),
        (low_high[1][0], low_high[1][1]),
    )


def kendall(one: Array, other: Array) -> Array:
    """Tau-b over the last axis, shape [...] for [..., n]; NaN where one of them ties all."""
    upper = np.triu_indices(one.shape[-1], 1)
    a, b = (np.sign(x[..., upper[0]] - x[..., upper[1]]) for x in (one, other))
    return _ratio((a * b).sum(-1), np.abs(a).sum(-1) * np.abs(b).sum(-1))


def spearman(one: Array, other: Array) -> Array:
    """Rho over the last axis, shape [...] for [..., n]; NaN where one of them ties all."""
    a, b = (_centred_ranks(x) for x in (one, other))
    return _ratio((a * b).sum(-1), (a * a).sum(-1) * (b * b).sum(-1))


def _centred_ranks(values: Array) -> Array:
    """Mean ranks less their mean."""
    below = (values[..., :, None] > values[..., None, :]).sum(-1)
    ties = (values[..., :, None] == values[..., None, :]).sum(-1)
    ranks: Array = below + (ties - 1) / 2
    centred: Array = ranks - ranks.mean(-1, keepdims=True)
    return centred


def _ratio(over: Array, squared: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Array = np.where(squared > 0, over / np.sqrt(squared), np.nan)
    return found
