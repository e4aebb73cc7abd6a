"""One trial in a pack: its order, what it trains, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from autopeft.adapters.head import Classifier
from autopeft.adapters.lifting import Lifted, LowRank, Whole, lift
from autopeft.study import Order
from workers.batches import Rows
from workers.evaluate import resumed
from workers.seeds import initial_seed
from workers.training import Curve, TrainingState


@dataclass(slots=True)
class Member:
    """A trial that trains beside others.

    Attributes:
        order: What was asked.
        lifted: Its adapters and its head, with their values.
        until: Step at which it has finished its rung.
        curve: Its training curve so far.
        from_step: Step that this attempt began at.
        begun: Where it goes on from; None if it begins.
        seconds: Its share of the seconds of training so far, in all attempts.
    """

    order: Order
    lifted: Lifted
    until: int
    curve: Curve = field(default_factory=Curve)
    from_step: int = 0
    begun: TrainingState | None = None
    seconds: float = 0.0

    @classmethod
    def enrol(cls, order: Order, classifier: Classifier, artifacts: Path, order_of_rows: Rows) -> Member:
        """The member that ``order`` asks for, from its furthest checkpoint that can be read, or from the beginning.

        ``classifier`` is left as it was. The seconds that this takes are the member's own.
        """
        started, study = time.perf_counter(), order.study
        try:
            state = resumed(order, classifier, artifacts)
            if state is None:
                plan = order.configuration
                classifier.adapt(plan, initial_seed(study.seed, order.replicate, plan.digest))
            lifted = lift(classifier)
        finally:
            classifier.strip()
        fidelity = study.fidelity
        member = cls(order, lifted, -(-len(order_of_rows) * fidelity.steps_at(order.rung) // fidelity.steps))
        if state is not None:
            member.curve = [(step, loss) for step, loss in state.curve]
            member.from_step, member.begun, member.seconds = state.step, state, state.seconds
        member.seconds += time.perf_counter() - started
        return member

    @property
    def key(self) -> tuple[int, int]:
        """Trial and attempt."""
        return self.order.key

    @property
    def learning_rate(self) -> float:
        """The peak."""
        return self.order.configuration.training.learning_rate

    @property
    def stacked(self) -> frozenset[str]:
        """Names of what it trains in stacked products."""
        names: set[str | None] = set()
        for way in self.lifted.ways.values():
            if isinstance(way, LowRank):
                names |= {way.down, way.up}
            elif isinstance(way, Whole):
                names |= {way.weight, way.bias}
        return frozenset(name for name in names if name is not None)

    @contextmanager
    def standing_in(self, classifier: Classifier) -> Iterator[None]:
        """While it lasts, ``classifier`` holds the member's adapters and head alone, as if it had trained them."""
        try:
            classifier.adapt(self.order.configuration, seed=0)
            with torch.no_grad():
                for name, parameter in classifier.trained_parameters().items():
                    parameter.copy_(self.lifted.parameters[name])
            yield
        finally:
            classifier.strip()
