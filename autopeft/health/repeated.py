"""What a search asked more than once: repeats that were meant, and proposals that came out equal. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from autopeft.candidates import Measured


@dataclass(frozen=True, slots=True)
class Repeated:
    """Counts over the searched trials of a study.

    Attributes:
        trials: All of them.
        plans: Different configurations among them.
        most: Trials of the configuration that was tried most often.
    """

    trials: int
    plans: int
    most: int

    @property
    def share(self) -> float:
        """Share of the trials that tried what had been tried before."""
        return 1 - self.plans / self.trials if self.trials else 0.0


def repeated(trials: Sequence[Measured]) -> Repeated:
    """The counts, of every state."""
    digests = Counter(one.digest for one in trials if one.origin.is_searched)
    return Repeated(digests.total(), len(digests), max(digests.values(), default=0))
