"""How MoLA spreads experts over the depth of a model (arXiv 2402.08562, section 5.1): five patterns by name.

Each gives expert counts for four equal parts of the layers, lowest first; here the ones that add up to 20.
"""

from __future__ import annotations

PATTERNS = {
    "triangle": (8, 6, 4, 2),
    "inverted-triangle": (2, 4, 6, 8),
    "hourglass": (8, 2, 2, 8),
    "diamond": (2, 8, 8, 2),
    "rectangle": (5, 5, 5, 5),
}
"""The diamond is in the NAACL version of the paper only."""


def quarter(layer: int, layer_count: int) -> int:
    """The part of the depth that ``layer`` lies in, 0 to 3; uneven where the layers are no multiple of four."""
    return 4 * layer // layer_count


def quarters(layer_count: int) -> tuple[tuple[int, ...], ...]:
    """The layers of each of the four parts that has any, lowest first."""
    parts = [tuple(layer for layer in range(layer_count) if quarter(layer, layer_count) == part) for part in range(4)]
    return tuple(part for part in parts if part)


def experts_at(pattern: str, layer: int, layer_count: int, share: float = 1.0) -> int:
    """Experts that ``pattern`` gives a layer, scaled by ``share`` and at least 1."""
    return max(1, round(share * PATTERNS[pattern][quarter(layer, layer_count)]))
