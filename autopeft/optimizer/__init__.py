"""Proposers: what to try next. Pure functions of observations, pending configurations and a generator.

No database, no clock, no torch: the surrogate is a small dense Gaussian process on numpy and scipy.
"""

from __future__ import annotations

from autopeft.errors import ConfigurationError
from autopeft.optimizer.proposer import Proposer

__all__ = ["PROPOSERS", "Proposer", "make_proposer"]

PROPOSERS = {
    "closed-form": "Sobol start, then a Gaussian process on quality with exact costs and closed-form hypervolume gain",
    "random": "random configurations within the budget",
    "sobol": "a scrambled Sobol sequence within the budget",
}
"""Every proposer in one line."""


def make_proposer(name: str, initial_count: int, seed: int) -> Proposer:
    """The proposer called ``name``.

    Args:
        name: A key of ``PROPOSERS``.
        initial_count: Sobol points before a model takes over (``closed-form`` only).
        seed: Scrambles the Sobol sequence.

    Raises:
        ConfigurationError: If there is none of that name.
    """
    # scipy.stats and scipy.optimize take half a second to import: only who proposes pays it
    from autopeft.optimizer.baselines import RandomProposer, SobolProposer
    from autopeft.optimizer.bayesian import ClosedFormProposer

    if name == "closed-form":
        return ClosedFormProposer(initial_count, seed)
    if name == "random":
        return RandomProposer()
    if name == "sobol":
        return SobolProposer(seed)
    raise ConfigurationError(f"proposer {name!r}: expected one of {', '.join(PROPOSERS)}")
