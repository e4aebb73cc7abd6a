"""What a search asks of a proposer beyond quality, parameters and the budget. Plain values; the default asks nothing.

Proposers that do not learn honour the exact limits alone; ``closed-form`` honours all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from autopeft.errors import ConfigurationError
from autopeft.pareto import Axis
from autopeft.study import Observation
from search_spaces.configuration import Configuration

Figure = Callable[[Configuration], float]
"""A number that follows from a configuration."""


@dataclass(frozen=True, slots=True)
class LowerRung:
    """What a trial showed before it was trained in full.

    Attributes:
        observation: Its values there.
        share: Of the full training, in (0, 1).
    """

    observation: Observation
    share: float

    def __post_init__(self) -> None:
        """Refuses full training, which is an observation like any other."""
        if not 0 < self.share < 1:
            raise ConfigurationError(f"rung at share {self.share} of the training: expected above 0 and below 1")


@dataclass(frozen=True, slots=True)
class Prior:
    """A belief about where good configurations are: a weight that fades as observations come in.

    The gain of x is multiplied by max(weight(x), floor) ** (strength / (1 + n)) after n observations, so that no
    configuration is ever ruled out.

    Attributes:
        weight: Larger for better, about (0, 1]; by the layers and modules that are adapted, say.
        strength: Observations after which the exponent is about 1.
        floor: Least weight > 0.
    """

    weight: Figure
    strength: float = 20.0
    floor: float = 0.05

    def __post_init__(self) -> None:
        """Refuses a floor that rules something out."""
        if not self.floor > 0:
            raise ConfigurationError(f"prior floor {self.floor}: expected above 0, so that nothing is ruled out")


@dataclass(frozen=True, slots=True)
class Demands:
    """Further objectives, limits and hints.

    Attributes:
        known: Exact values by name (stored bytes, FLOPs, predicted memory), as objectives or for limits; trained
            parameters need no entry.
        axes: The axis of every objective other than the first and the trained parameters.
        limits: Most allowed by name. Exact for a name in ``known``: such configurations are never proposed.
            Otherwise measured: the gain is multiplied by the probability of keeping it.
        predicted_seconds: Price of a trial; if given, the gain per second counts, not the gain.
        prior: Where good configurations are expected.
        lower_rungs: Results of shorter trainings; they inform the surrogate only.
        repeats: Most measurements of one configuration. Above 1 a batch may hold observed configurations: those whose
            repeat is worth more than the best new one.
    """

    known: Mapping[str, Figure] = field(default_factory=dict)
    axes: Mapping[str, Axis] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)
    predicted_seconds: Figure | None = None
    prior: Prior | None = None
    lower_rungs: Sequence[LowerRung] = ()
    repeats: int = 1

    def keeps_exact_limits(self, configuration: Configuration) -> bool:
        """Whether ``configuration`` keeps every limit that is known before it is tried."""
        exact = (name for name in self.limits if name in self.known)
        return all(self.known[name](configuration) <= self.limits[name] for name in exact)


NOTHING_MORE = Demands()
