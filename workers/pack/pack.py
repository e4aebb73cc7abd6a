"""Trains the members of a pack together: each step is one forward and one backward pass for all of them.

The rows of a step stand in the batch once for each member; losses are means over a member's own rows and are added up,
so that gradients do not mix. Each member has its own learning rate, clipping and moments (``workers.pack.arena``), and
may leave between two steps. Up to rounding a member trains as it would alone (``workers.training``), and it does not
depend on who trains beside it.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from autopeft.adapters.head import Classifier
from autopeft.adapters.places import placed
from autopeft.adapters.replay import ENTERING, refusal, states_entering
from autopeft.errors import DivergedError, EvaluationError
from workers.batches import Rows, TaskRows
from workers.pack.arena import Arena
from workers.pack.member import Member
from workers.stopping import Preempted
from workers.training import (
    CURVE_POINTS,
    TrainingState,
    counted,
    generators,
    loss_of,
    precision,
    rate_share,
    said_tokens,
)

Key = tuple[int, int]
"""Trial and attempt."""

Watch = Callable[[int], Mapping[Key, bool]]
"""Called with the number of steps done; gives who is to leave now, and whether somebody will go on with it."""

Leaving = dict[int, Exception]
"""Why a member leaves, by its row."""


def nobody_leaves(_steps: int) -> Mapping[Key, bool]:
    """Never asks anybody to leave."""
    return {}


class Pack:
    """Some members at the same step of the same order.

    Args:
        classifier: The resident backbone without adapters; it is left so between the calls.
        rows: Training rows.
        order: Row numbers of each step, shape [steps, batch size].
        members: At least one, all at the same step.

    Attributes:
        classifier: Likewise.
        device: Where it trains.
        members: Likewise; those that are still in it.
        step: Steps made.
        arena: What they train.
    """

    def __init__(self, classifier: Classifier, rows: TaskRows, order: Rows, members: Sequence[Member]) -> None:
        self.members, self.step = list(members), members[0].from_step
        self.classifier, self._rows, self._order = classifier, rows, order
        self.device = next(classifier.parameters()).device
        self._losses: list[Tensor] = []
        self._checked = False
        self.arena = Arena([member.lifted.parameters for member in members], [member.stacked for member in members])
        pending = [member.begun.losses for member in members if member.begun is not None]
        if pending:
            self._losses = list(torch.stack(pending, dim=1).to(self.device).unbind())
        for row, member in enumerate(members):
            if member.begun is not None:
                self.arena.take_state(row, member.begun.optimizer)
        self._bind()

    def run(self, until: int, watch: Watch = nobody_leaves) -> Leaving:
        """Trains up to step ``until``, or until somebody leaves; who does, and why, comes back.

        The wall seconds that this takes are shared out evenly among the members that were there.

        Raises:
            EvaluationError: If a trained tensor gets no gradient.
        """
        started = time.perf_counter()
        leaving: Leaving = {}
        with placed(self.classifier, [member.lifted for member in self.members], self.arena.leaf):
            while self.step < until and not leaving:
                leaving = self._note(self._make_step())
                asked = watch(self.step)
                leaving |= {
                    row: Preempted("the trial was given up", keep=asked[member.key])
                    for row, member in enumerate(self.members)
                    if member.key in asked
                }
        self.share(time.perf_counter() - started)
        return leaving

    def share(self, seconds: float) -> None:
        """Adds an even share of ``seconds`` to each member's."""
        for member in self.members:
            member.seconds += seconds / len(self.members)

    def take(self, rows: Sequence[int]) -> Pack:
        """The members at ``rows`` as a pack of their own, where they stand; they are no longer in this one."""
        left = [row for row in range(len(self.members)) if row not in set(rows)]
        taken = self._part(rows)
        if left:
            rest = self._part(left)
            self.arena, self._losses = rest.arena, rest._losses
            self._bind_to(rest.members)
        else:
            self._bind_to([])
        return taken

    def logits(self, inputs: Mapping[str, Tensor], last: int = 0) -> Tensor:
        """Logits in float32 of all members, shape [members × rows, …], inside ``placed``.

        Args:
            inputs: Of the rows, once.
            last: As ``Classifier.forward`` has it.
        """
        given = dict(inputs)
        layer, model = self.classifier.first_layer, self.classifier.model
        with precision(self.classifier):
            if ENTERING not in given and layer > 0 and refusal(model) is None:
                given[ENTERING] = states_entering(model, layer, inputs)
            times = len(self.members)
            repeated = {name: tensor.repeat(times, *[1] * (tensor.dim() - 1)) for name, tensor in given.items()}
            found: Tensor = self.classifier(repeated, last=last)
        return found

    def state(self, row: int) -> TrainingState:
        """Where one member stands, as ``workers.training.TrainingRun`` would tell it of a trial alone."""
        member = self.members[row]
        losses = torch.stack([losses[row] for losses in self._losses]) if self._losses else torch.zeros(0)
        before = member.begun
        return TrainingState(
            step=self.step,
            curve=member.curve,
            losses=losses,
            optimizer=self.arena.optimizer_state(row, self.step),
            generators=generators(self.device),
            updates={},
            peak_bytes=0 if before is None else before.peak_bytes,
            saved_bytes=0 if before is None else before.saved_bytes,
            seconds=member.seconds,
        )

    def _make_step(self) -> Tensor:
        """The loss of each member, shape [members]."""
        inputs, labels = self._rows.batch(self._order[self.step], self.device)
        if self._checked:
            self.arena.zero_gradients()
        else:
            self.arena.forget_gradients()
        logits = self.logits(inputs, said_tokens(labels))
        times = len(self.members)
        each = loss_of(logits, labels.repeat(times, *[1] * (labels.dim() - 1)), "none")
        losses = each.reshape(times, -1).sum(1) / counted(labels)
        with warnings.catch_warnings():  # columns of a table are no block of memory, which costs nothing here
            warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")
            losses.sum().backward()  # type: ignore[no-untyped-call]
        if not self._checked:
            self._require_gradients()
        self.arena.step(self._rates * rate_share(self.step, len(self._order)), self.step + 1)
        self.step += 1
        return losses.detach()

    def _note(self, losses: Tensor) -> Leaving:
        """Takes in the losses of a step; who has diverged comes back, at the points where a curve is noted."""
        self._losses.append(losses)
        if len(self._losses) < math.ceil(len(self._order) / CURVE_POINTS) and self.step < len(self._order):
            return {}
        means = torch.stack(self._losses).mean(0).tolist()
        self._losses.clear()
        diverged: Leaving = {}
        for row, (member, mean) in enumerate(zip(self.members, means, strict=True)):
            if math.isfinite(mean):
                member.curve.append((self.step, mean))
            else:
                said = (
                    f"the training loss is {mean} at step {self.step}; expected a finite number: lower learning rates"
                )
                diverged[row] = DivergedError(said)
        return diverged

    def _require_gradients(self) -> None:
        dead, self._checked = self.arena.without_gradient(), True
        if dead:
            raise EvaluationError(f"{len(dead)} trained tensors got no gradient at step 1: {', '.join(dead[:3])}")

    def _part(self, rows: Sequence[int]) -> Pack:
        found = object.__new__(Pack)
        found.classifier, found._rows, found._order = self.classifier, self._rows, self._order
        found.device, found._checked, found.step = self.device, self._checked, self.step
        found._losses = [losses[list(rows)] for losses in self._losses]
        found.arena = self.arena.part(rows)
        found._bind_to([self.members[row] for row in rows])
        return found

    def _bind_to(self, members: Sequence[Member]) -> None:
        self.members = list(members)
        self._bind()

    def _bind(self) -> None:
        self._rates = torch.tensor([member.learning_rate for member in self.members], device=self.device)
