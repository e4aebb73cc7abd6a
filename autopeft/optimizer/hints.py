"""Scores of layers and modules as a belief about configurations: Bernoulli priors with a floor, which fade.

An entry e (a layer, or a module of one) is adapted in a good configuration with probability
``π_e = ε + (1 − 2ε) sigmoid((s_e − mean s) / (τ std s))``; the weight of a configuration is
``Π_e P(bit_e) / max(π_e, 1 − π_e)``, which is 1 for the likeliest. Scores that are all equal say nothing. Fading and
the floor of the whole are ``Prior``'s (πBO, arXiv 2204.11051). Scores are noisy, hence ε and τ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from autopeft.optimizer.demands import Prior
from autopeft.probe import LAYER, Guide
from search_spaces.configuration import Configuration, LayerPlan
from search_spaces.selection import Entry

FLOOR = 0.1
"""ε: no entry is believed in with more than 1 − ε."""

TEMPERATURE = 1.0
"""τ: standard deviations of the scores that one unit of the logit is."""

STRENGTH = 10.0
"""Observations after which the weight counts in full, and no more; less afterwards."""


def prior_of(guides: Sequence[Guide]) -> Prior | None:
    """What several sets of scores make believe together; None without any, or where they say nothing."""
    beliefs = [belief for guide in guides if (belief := probabilities(guide.scores))]
    if not beliefs:
        return None

    def weight(configuration: Configuration) -> float:
        return math.prod(likelihood(belief, configuration) for belief in beliefs)

    return Prior(weight, STRENGTH)


def probabilities(scores: Mapping[str, Sequence[float | None]]) -> dict[Entry, float]:
    """π of each (layer, site) that has a score, ``LAYER`` as the site of a whole layer; empty if all are equal."""
    known = {
        (layer, site): float(value)
        for site, row in scores.items()
        for layer, value in enumerate(row)
        if value is not None
    }
    values = np.array(list(known.values()))
    spread = float(values.std())
    if spread <= 1e-12 * max(1.0, float(np.abs(values).max())):
        return {}
    logits = (values - values.mean()) / (TEMPERATURE * spread)
    shares = FLOOR + (1 - 2 * FLOOR) / (1 + np.exp(-logits))
    return dict(zip(known, shares.tolist(), strict=True))


def likelihood(belief: Mapping[Entry, float], configuration: Configuration) -> float:
    """Of the bits of ``configuration`` under ``belief``, over that of the likeliest bits: in (0, 1]."""
    total = 0.0
    for (layer, site), share in belief.items():
        if _is_adapted(configuration.layers[layer], site):
            total += math.log(share / max(share, 1 - share))
        else:
            total += math.log((1 - share) / max(share, 1 - share))
    return math.exp(total)


def _is_adapted(row: LayerPlan, site: str) -> bool:
    return any(site in (LAYER, placement.site) for placement in row.placements)
