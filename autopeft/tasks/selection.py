"""Deterministic parts of a split, with every class in its share: carving validation from train, and taking fewer rows.

Knows labels only, as an array; no texts, no files.
"""

from __future__ import annotations

import numpy as np

CARVED_FRACTION = 0.1
MOST_CARVED_ROWS = 2000


def carve(labels: np.ndarray, regression: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that stay in train and rows that become validation, as sorted indices.

    A tenth, at most ``MOST_CARVED_ROWS``; at least one row of each class that has two, and never the last of a class.

    Args:
        labels: Shape (n), class indices or numbers.
        regression: Whether labels are numbers, so that no class needs its share.
        seed: Same labels and seed give the same rows.
    """
    count = min(max(1, round(CARVED_FRACTION * len(labels))), MOST_CARVED_ROWS)
    groups = np.zeros(len(labels), dtype=int) if regression else labels
    sizes = np.bincount(groups)
    shares = _shares(sizes, count, least=np.where(sizes > 1, 1, 0), most=np.maximum(sizes - 1, 0))
    chosen = _draw(groups, shares, seed)
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen


def take_part(labels: np.ndarray, count: int, regression: bool, seed: int) -> np.ndarray:
    """``count`` rows as sorted indices, classes in proportion and each at least once where ``count`` allows.

    Args:
        labels: Shape (n), class indices or numbers.
        count: At most n.
        regression: Whether labels are numbers, so that no class needs its share.
        seed: Same labels and seed give the same rows.
    """
    groups = np.zeros(len(labels), dtype=int) if regression else labels
    sizes = np.bincount(groups)
    least = np.where(sizes > 0, 1, 0) if np.count_nonzero(sizes) <= count else np.zeros_like(sizes)
    return _draw(groups, _shares(sizes, count, least, most=sizes), seed)


def _shares(sizes: np.ndarray, count: int, least: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Rows of each group: in proportion by largest remainder, within ``least`` and ``most``."""
    exact = sizes * count / sizes.sum()
    shares = np.clip(np.floor(exact).astype(int), least, most)
    while shares.sum() < count and np.any(shares < most):
        shares[np.argmax(np.where(shares < most, exact - shares, -np.inf))] += 1
    while shares.sum() > count and np.any(shares > least):
        shares[np.argmax(np.where(shares > least, shares - exact, -np.inf))] -= 1
    return np.asarray(shares)


def _draw(groups: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    chosen = [
        generator.permutation(np.flatnonzero(groups == group))[:share] for group, share in enumerate(shares) if share
    ]
    return np.sort(np.concatenate(chosen)) if chosen else np.array([], dtype=int)
