"""Which of many points are drawn: one for each small cell of the plot, so that 20,000 trials are no heavier than 2,000.

Only dominated points are thinned, and only where others would lie on them; the point that stays says how many it
stands for. The front and the control are always drawn whole.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

MOST = 900
"""Dominated points that are drawn at most."""

_COLUMNS, _ROWS = 180, 120
"""Cells of a plot where points of seven pixels cover each other."""


def thinned(points: pd.DataFrame, x: str, y: str, logarithmic: tuple[bool, bool]) -> pd.DataFrame:
    """``points`` with a column ``stands_for``, thinned so that at most about ``MOST`` are left.

    Args:
        points: Dominated points.
        x: Column across.
        y: Column up.
        logarithmic: Whether either is drawn on a log scale.
    """
    if len(points) <= MOST:
        return points.assign(stands_for=1)
    across, up = (_unit(points[name], log) for name, log in zip((x, y), logarithmic, strict=True))
    coarser = 1.0
    while True:
        cells = (across * _COLUMNS / coarser).astype(np.int64) * 1000 + (up * _ROWS / coarser).astype(np.int64)
        _, first, count = np.unique(cells, return_index=True, return_counts=True)
        if len(first) <= MOST:
            return points.iloc[first].assign(stands_for=count)
        coarser *= 1.25


def _unit(values: pd.Series[float], logarithmic: bool) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    numbers = values.to_numpy(dtype=np.float64)
    scaled = np.log(numbers) if logarithmic else numbers
    span = scaled.max() - scaled.min()
    unit: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = (scaled - scaled.min()) / (span or 1.0)
    return unit
