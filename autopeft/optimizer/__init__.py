"""Proposers: what to try next. Pure functions of observations, pending configurations and a generator.

No database, no clock. Ours runs on numpy and scipy; peers that need Optuna or BoTorch load them when asked.
"""

from __future__ import annotations

from collections.abc import Sequence

from autopeft.errors import ConfigurationError
from autopeft.optimizer.proposer import Proposer

__all__ = ["PROPOSERS", "Proposer", "make_proposer", "require_able"]

PROPOSERS = {
    "closed-form": "Sobol start, then Gaussian processes, exact costs and closed-form expected hypervolume improvement",
    "random": "random configurations within the budget",
    "sobol": "a scrambled Sobol sequence within the budget",
    "evolution": "regularised evolution: the youngest trials, a tournament, one mutation",
    "tpe": "Optuna's tree-structured Parzen estimator",
    "nsga2": "Optuna's NSGA-II",
    "nsga3": "Optuna's NSGA-III",
    "gpsampler": "Optuna's Gaussian process sampler",
    "botorch": "BoTorch's SingleTaskGP with exact costs and qLogNEHVI",
    "saasbo-map": "BoTorch's ensemble of MAP-SAAS processes with exact costs and qLogNEHVI",
    "saasbo-nuts": "BoTorch's SAAS by NUTS with exact costs and qLogNEHVI (needs JAX and NumPyro)",
}
"""Every proposer in one line."""


def require_able(name: str, measured: Sequence[str], repeats: int = 1) -> None:
    """Nothing, if the proposer called ``name`` can trade off the costs in ``measured``, and propose ``repeats``.

    Raises:
        ConfigurationError: If it cannot.
    """
    if name == "saasbo-nuts" and measured:
        raise ConfigurationError(
            f"proposer {name} learns the quality alone, and {', '.join(measured)} is measured too: take closed-form or "
            "saasbo-map, or costs that are exact"
        )
    if repeats > 1 and name != "closed-form":
        raise ConfigurationError(f"proposer {name} proposes no repeats: take closed-form, or leave repeats at 1")


def make_proposer(name: str, initial_count: int, seed: int) -> Proposer:
    """The proposer called ``name``.

    Args:
        name: A key of ``PROPOSERS``.
        initial_count: Sobol points before a model or a population takes over (not for ``random`` and ``sobol``).
        seed: Scrambles the Sobol sequence.

    Raises:
        ConfigurationError: If there is none of that name, or what it needs is not installed.
    """
    # scipy.stats and scipy.optimize take half a second to import: only who proposes pays it
    from autopeft.optimizer import botorch_peers, optuna_peers
    from autopeft.optimizer.baselines import RandomProposer, SobolProposer
    from autopeft.optimizer.bayesian import ClosedFormProposer
    from autopeft.optimizer.evolution import evolution
    from autopeft.optimizer.peers import Advice, PeerProposer

    if name == "closed-form":
        return ClosedFormProposer(initial_count, seed)
    if name == "random":
        return RandomProposer()
    if name == "sobol":
        return SobolProposer(seed)
    peers: dict[str, Advice] = {
        "evolution": evolution,
        "tpe": optuna_peers.tpe,
        "nsga2": optuna_peers.nsga2,
        "nsga3": optuna_peers.nsga3,
        "gpsampler": optuna_peers.gpsampler,
        "botorch": botorch_peers.botorch,
        "saasbo-map": botorch_peers.saasbo_map,
        "saasbo-nuts": botorch_peers.saasbo_nuts,
    }
    if name not in peers:
        raise ConfigurationError(f"proposer {name!r}: expected one of {', '.join(PROPOSERS)}")
    if name in ("tpe", "nsga2", "nsga3", "gpsampler"):
        optuna_peers.require_optuna()
    if name == "saasbo-nuts":
        botorch_peers.require_nuts()
    return PeerProposer(name, peers[name], initial_count, seed)
