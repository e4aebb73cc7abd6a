"""How much training a trial is: the full run, and the ladder of rungs below it. Plain values.

The learning-rate schedule is always that of the full run, so a trial that goes on from a rung is on the curve that it
would have taken without one (arXiv 1810.05934 promotes trials the same way, by another rule: ``autopeft.rungs``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

from autopeft.errors import ConfigurationError

SHARE = Fraction(1, 4)
"""Share of the full run at which a trial is looked at, if nothing else is asked; a second rung at a half was measured
to cost hypervolume and to save nothing (docs/experiments.md)."""

SHORTEST_RUNG = 20
"""Steps before which no loss was found to say anything of the final one."""

LEAST_STEP = 1.5
"""The full run is at least so many times the rung below it: a closer one costs more than it saves."""

FULL, RUNGS = "full", "rungs"
_SHARE = re.compile(r"\d+/\d+|\d*\.?\d+")


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How much training a trial is.

    Attributes:
        steps: Optimiser steps of the full run (the schedule's horizon).
        batch_size: Rows a step.
        max_length: Most tokens of a row.
        ladder: Steps of the rungs below the full run, growing; empty: every trial is trained in full.
        micro_batch: Most rows in one forward pass; gradients are added up to a step of ``batch_size``. None: no limit.
        packing: Whether the rows of a forward pass lie end to end in sequences of at most ``max_length`` tokens.
    """

    steps: int
    batch_size: int
    max_length: int
    ladder: tuple[int, ...] = ()
    micro_batch: int | None = None
    packing: bool = False

    def __post_init__(self) -> None:
        """Refuses sizes below one, and a ladder that does not climb to below the full run."""
        sizes = (("steps", self.steps), ("batch size", self.batch_size), ("max length", self.max_length))
        for name, value in (*sizes, ("micro batch", self.micro_batch)):
            if value is not None and value < 1:
                raise ConfigurationError(f"{name} {value}: expected a whole number ≥ 1")
        if any(low >= high for low, high in pairwise((0, *self.ladder, self.steps))):
            raise ConfigurationError(
                f"rungs at the steps {', '.join(map(str, self.ladder))}: expected growing numbers from 1 "
                f"to {self.steps - 1}, below the full run of {self.steps} steps"
            )

    @property
    def top(self) -> int:
        """Number of the highest rung, the full run; rungs count from 0."""
        return len(self.ladder)

    def steps_at(self, rung: int) -> int:
        """Steps that a trial has made when it finishes ``rung``."""
        return (*self.ladder, self.steps)[rung]

    def share_at(self, rung: int) -> float:
        """Share of the full run at ``rung``, in (0, 1]."""
        return self.steps_at(rung) / self.steps

    def accumulation(self, halvings: int = 0) -> int:
        """Forward passes in which a step is made, after its micro-batch was halved so often."""
        rows = max(1, min(self.micro_batch or self.batch_size, self.batch_size) >> halvings)
        return -(-self.batch_size // rows)

    def to_json(self) -> dict[str, Any]:
        """Plain values that ``from_json`` reads back; what is not set is left out."""
        plain: dict[str, Any] = {name: getattr(self, name) for name in ("steps", "batch_size", "max_length")}
        if self.ladder:
            plain["ladder"] = list(self.ladder)
        if self.micro_batch is not None:
            plain["micro_batch"] = self.micro_batch
        if self.packing:
            plain["packing"] = True
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Fidelity:
        """The fidelity that ``to_json`` wrote, by this version or an older one."""
        return cls(**{**data, "ladder": tuple(data.get("ladder", ()))})


def ladder_of(text: str, steps: int) -> tuple[int, ...]:
    """Steps of the rungs below a full run of ``steps`` that ``text`` asks for.

    Args:
        text: ``full`` for none; ``rungs`` for a quarter of the run, but at least 20 steps and never close to the full
            run; or shares of the full run, growing, like ``1/4,1/2`` or ``0.1,0.3``.
        steps: Of the full run.

    Raises:
        ConfigurationError: If ``text`` is nothing of these, or two shares are the same step.
    """
    if text == FULL:
        return ()
    if text == RUNGS:
        first = max(round(steps * SHARE), SHORTEST_RUNG)
        return (first,) if first * LEAST_STEP <= steps else ()
    shares = [_share(part.strip(), text) for part in text.split(",")]
    if any(low >= high for low, high in pairwise((*shares, Fraction(1)))):
        raise ConfigurationError(f"fidelity {text!r}: expected growing shares below 1, like 1/4,1/2")
    ladder = [max(1, round(steps * share)) for share in shares]
    if any(low >= high for low, high in pairwise((*ladder, steps))):
        raise ConfigurationError(
            f"fidelity {text!r}: of {steps} steps these are the rungs {', '.join(map(str, ladder))}; "
            "give fewer or wider shares, or more steps"
        )
    return tuple(ladder)


def _share(part: str, text: str) -> Fraction:
    try:
        share = Fraction(part) if _SHARE.fullmatch(part) else Fraction(0)
    except ZeroDivisionError:
        share = Fraction(0)
    if not 0 < share < 1:
        raise ConfigurationError(
            f"fidelity {text!r}: expected {RUNGS}, {FULL}, or growing shares of the full run between 0 and 1, "
            f"like 1/4,1/2; got {part!r}"
        )
    return share
