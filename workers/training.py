"""Trains adapters and head on a frozen backbone: AdamW, linear warm-up and decay over the full horizon, clipping.

The backbone stays in evaluation mode, so the frozen part computes the same for every trial. The horizon is the full
run's, wherever a run is left: who goes on joins its curve. Files are ``workers.checkpoints``' work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from autopeft.adapters.head import Classifier
from autopeft.adapters.parts import auxiliary_loss
from autopeft.errors import DivergedError, EvaluationError, OutOfMemoryError
from autopeft.regime import FP16
from workers.answers import IGNORED
from workers.batches import Rows, TaskRows
from workers.memory import MemoryMeter
from workers.processes import ALONE, Processes

WARM_UP_FRACTION = 0.1
WEIGHT_DECAY = 0.01
CLIP_NORM = 1.0
CURVE_POINTS = 50
"""Most points of a stored training curve."""

BetweenSteps = Callable[[int], None]
"""Called with the number of steps done; raises what should end the trial."""

Curve = list[tuple[int, float]]


class Updates(Protocol):
    """Which parameters each step updates."""

    @property
    def vary(self) -> bool:
        """Whether steps differ in that, and so in what they keep in memory."""
        ...

    def before_step(self, step: int) -> None:
        """Makes ``requires_grad`` what it is to be at ``step`` (from 0)."""
        ...

    def state(self) -> dict[str, Any]:
        """What another process needs to decide on as this one would; plain values."""
        ...

    def go_on_from(self, state: Mapping[str, Any]) -> None:
        """Takes in what ``state`` gave."""
        ...


class UpdateAll:
    """Every step updates all that is trained."""

    vary = False

    def before_step(self, step: int) -> None:
        """Nothing."""

    def state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def go_on_from(self, state: Mapping[str, Any]) -> None:
        """Nothing."""


UPDATE_ALL = UpdateAll()


def go_on(_steps_done: int) -> None:
    """Never ends a trial."""


def rate_share(step: int, horizon: int) -> float:
    """Share of the peak learning rate at ``step`` (from 0) of a run of ``horizon`` steps, in (0, 1]."""
    warm_up = max(1, round(WARM_UP_FRACTION * horizon))
    if step < warm_up:
        return (step + 1) / warm_up
    return (horizon - step) / max(1, horizon - warm_up)


def loss_of(logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy for class indices and for the tokens of answers [rows, tokens], squared error for real targets."""
    if labels.dim() == 2:
        return answer_losses(logits, labels, reduction)
    if labels.is_floating_point():
        return nn.functional.mse_loss(logits.squeeze(-1), labels, reduction=reduction)
    return nn.functional.cross_entropy(logits, labels, reduction=reduction)


def answer_losses(logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy of each answer's tokens, each predicted by the token before it.

    Args:
        logits: Shape [rows, last tokens, vocabulary]: of the last tokens of the batch, or of all.
        labels: Shape [rows, tokens], ``IGNORED`` outside answers.
        reduction: ``mean`` over the tokens of all answers, or ``none`` for [rows, last tokens - 1], 0 outside answers.
    """
    targets = labels[:, labels.shape[1] - logits.shape[1] + 1 :]
    predictions = logits[:, :-1].transpose(1, 2)
    return nn.functional.cross_entropy(predictions, targets, ignore_index=IGNORED, reduction=reduction)


def said_tokens(labels: Tensor) -> int:
    """How many logits at the end of a batch the loss needs, so that no others are computed; 0 for all of them."""
    if labels.dim() < 2:
        return 0
    first = int((labels != IGNORED).any(0).int().argmax())
    return labels.shape[1] - first + 1


@dataclass(frozen=True, slots=True)
class TrainingState:
    """What, beside the trained values, another process needs to go on between two steps.

    Attributes:
        step: Steps made.
        curve: Points of the training curve so far.
        losses: Of the steps since its last point, shape [steps].
        optimizer: State of the optimiser; empty where nothing is trained.
        generators: States of torch's generators by device type.
        updates: State of what decides about updates.
        peak_bytes: Peak memory so far.
        saved_bytes: The most that a step kept for its backward pass so far.
        seconds: Spent on these steps, in all attempts.
        scaler: State of what scales the loss; empty where nothing does.
    """

    step: int
    curve: Curve
    losses: Tensor
    optimizer: dict[str, Any]
    generators: dict[str, Tensor]
    updates: dict[str, Any]
    peak_bytes: int
    saved_bytes: int
    seconds: float
    scaler: dict[str, Any] = field(default_factory=dict)


class TrainingRun:
    """One training of adapters and head, which can be left between two steps and gone on with.

    Nothing is to be trained in a language model without adapters, whose head is its own: its curve is empty. What
    adapters add to the loss (the balance of their routers) is trained on and is not in the curve.

    Args:
        classifier: With its adapters in; trained in place.
        rows: Training rows.
        order: Row numbers of each step, shape [steps, batch size]; its length is the schedule's horizon.
        learning_rate: Peak, of adapters and head.
        between_steps: Called after every step.
        meter: What measures peak memory.
        updates: Which parameters each step updates.
        accumulation: Forward passes that a step's rows are divided among; its gradient is that of all of them.
        state: Where an earlier run of the same order was left, or None.
        processes: That share the rows of every step, and hold the same values after it.
    """

    def __init__(
        self,
        classifier: Classifier,
        rows: TaskRows,
        order: Rows,
        learning_rate: float,
        between_steps: BetweenSteps = go_on,
        meter: MemoryMeter | None = None,
        updates: Updates = UPDATE_ALL,
        accumulation: int = 1,
        state: TrainingState | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.step, self.curve = 0, Curve()
        self._classifier, self._rows, self._order = classifier, rows, order
        self._learning_rate, self._between_steps = learning_rate, between_steps
        self._device = next(classifier.parameters()).device
        self._meter = meter or MemoryMeter(classifier, self._device)
        self._updates, self._accumulation, self._processes = updates, accumulation, processes
        self._parameters = classifier.trained_parameters()
        self._optimizer = _optimizer(self._parameters, learning_rate)
        self._scaler = gradient_scaler(classifier)
        self._window = math.ceil(len(order) / CURVE_POINTS)
        self._losses: list[Tensor] = []
        self._peak = self._saved = 0
        if state is not None:
            self._go_on_from(state)

    @property
    def peak_bytes(self) -> int:
        """Peak memory so far: the largest of what each attempt found at its widest batch."""
        return max(self._peak, self._meter.peak_bytes)

    @property
    def saved_bytes(self) -> int:
        """The most that a step kept for its backward pass so far."""
        return max(self._saved, self._meter.saved_bytes)

    def run(self, until: int) -> None:
        """Trains up to step ``until``; nothing if it is there.

        Raises:
            DivergedError: If the loss is not finite.
            EvaluationError: If an adapter that is to be updated gets no gradient.
        """
        if self._optimizer is None or self.step >= until:
            self.step = max(self.step, until)
            return
        first = self.step
        widest = first + widest_step(self._rows, self._order[first:until])
        for step in range(first, until):
            loss = self._forward_and_back(self._optimizer, step, widest)
            if step == first:
                _require_gradients(self._due())
            loss = self._processes.add_up(loss, list(self._due().values()))
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._parameters.values(), CLIP_NORM)
            self._scaler.step(self._optimizer)
            self._scaler.update()
            if step in (first, until - 1):  # the optimiser's state grows while parameters wait for their first step
                self._meter.after_step(self._parameters.values(), self._optimizer)
            self._note(loss, step + 1)
            self._between_steps(step + 1)

    def state(self, seconds: float) -> TrainingState:
        """Where the run stands now, for ``state`` of another, after ``seconds`` of training in all attempts."""
        optimizer = {} if self._optimizer is None else self._optimizer.state_dict()
        losses = torch.stack(self._losses) if self._losses else torch.zeros(0)
        drawn, updates = generators(self._device), self._updates.state()
        kept = self.step, self.curve, losses, optimizer, drawn, updates, self.peak_bytes, self.saved_bytes
        return TrainingState(*kept, seconds, self._scaler.state_dict())

    def _go_on_from(self, state: TrainingState) -> None:
        self.step, self.curve = state.step, [(step, loss) for step, loss in state.curve]
        self._losses = list(state.losses.to(self._device).unbind())
        self._peak, self._saved = state.peak_bytes, state.saved_bytes
        self._updates.go_on_from(state.updates)
        if self._optimizer is not None:
            self._optimizer.load_state_dict(state.optimizer)
        if state.scaler:
            self._scaler.load_state_dict(state.scaler)
        for kind, generator in state.generators.items():
            if kind == "cpu":
                torch.set_rng_state(generator.cpu())
            elif kind == self._device.type:
                torch.cuda.set_rng_state(generator.cpu(), self._device)

    def _due(self) -> dict[str, nn.Parameter]:
        """What must have got a gradient at this step."""
        due = self._classifier.reached_parameters()
        return {name: p for name, p in due.items() if p.requires_grad or not self._updates.vary}

    def _forward_and_back(self, optimizer: torch.optim.Optimizer, step: int, widest: int) -> Tensor:
        """The loss of a step's rows, whose gradient is in the parameters then."""
        for group in optimizer.param_groups:
            group["lr"] = self._learning_rate * rate_share(step, len(self._order))
        self._updates.before_step(step)
        optimizer.zero_grad(set_to_none=True)
        chosen = self._order[step]
        rank, count = self._processes.rank, self._processes.count
        parts = [part for part in np.array_split(chosen, self._accumulation * count) if len(part)]
        total = counted(self._rows.batch(chosen, self._device)[1]) if len(parts) > 1 else 0
        noted, losses = self._updates.vary or step == widest, []
        for part in parts[rank::count]:
            inputs, labels = self._rows.batch(part, self._device)
            with precision(self._classifier), self._meter.forward_pass(noted):
                logits = self._classifier(inputs, last=said_tokens(labels))
                loss = loss_of(logits, labels) if len(parts) == 1 else loss_of(logits, labels, "sum") / total
                added = auxiliary_loss(self._classifier.model)
            share = len(part) / len(chosen)
            whole = loss if added is None else loss + share * added.to(loss.device)
            self._scaler.scale(whole).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _note(self, loss: Tensor, done: int) -> None:
        self._losses.append(loss)
        if len(self._losses) == self._window or done == len(self._order):
            self.curve.append((done, _finite_mean(self._losses, done)))
            self._losses.clear()
        self.step = done


def train(
    classifier: Classifier,
    rows: TaskRows,
    order: Rows,
    learning_rate: float,
    between_steps: BetweenSteps = go_on,
    meter: MemoryMeter | None = None,
    updates: Updates = UPDATE_ALL,
) -> Curve:
    """The training curve of a run in full: (step, mean loss since the point before) pairs. Arguments: ``TrainingRun``.

    Raises:
        DivergedError: If the loss is not finite.
        EvaluationError: If an adapter that is to be updated gets no gradient.
    """
    run = TrainingRun(classifier, rows, order, learning_rate, between_steps, meter, updates)
    run.run(len(order))
    return run.curve


def widest_step(rows: TaskRows, order: Rows) -> int:
    """The step of ``order`` that needs most memory: with the longest row, which pads all; packed, with most tokens."""
    lengths = rows.lengths[order]
    return int((lengths.sum(1) if getattr(rows, "is_packed", False) else lengths.max(1)).argmax())


def counted(labels: Tensor) -> int:
    """Of how many rows, or tokens of answers, the loss is the mean."""
    return int((labels != IGNORED).sum()) if labels.dim() == 2 else len(labels)


def _optimizer(parameters: Mapping[str, nn.Parameter], learning_rate: float) -> torch.optim.AdamW | None:
    if not parameters:
        return None
    return torch.optim.AdamW(parameters.values(), lr=learning_rate, weight_decay=WEIGHT_DECAY, fused=True)


def generators(device: torch.device) -> dict[str, Tensor]:
    """States of torch's generators by device type."""
    found = {"cpu": torch.get_rng_state()}
    return found | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def precision(classifier: Classifier) -> torch.autocast:
    """The arithmetic of ``classifier``; unless its study says, bfloat16 on GPUs that have it and float32 elsewhere."""
    kind = next(classifier.parameters()).device.type
    half = kind == "cuda" and torch.cuda.is_bf16_supported()
    if classifier.precision is not None:
        half = classifier.precision != "fp32"
    return torch.autocast(kind, dtype=torch.float16 if classifier.precision == FP16 else torch.bfloat16, enabled=half)


def gradient_scaler(classifier: Classifier) -> torch.amp.GradScaler:
    """What scales the loss of float16, whose smallest gradients would be 0 else; it does nothing for other types."""
    return torch.amp.GradScaler(next(classifier.parameters()).device.type, enabled=classifier.precision == FP16)


def _finite_mean(losses: list[Tensor], step: int) -> float:
    mean = float(torch.stack(losses).mean())
    if not math.isfinite(mean):
        raise DivergedError(
            f"the training loss is {mean} at step {step}; expected a finite number: lower learning rates"
        )
    return mean


def _require_gradients(parameters: Mapping[str, nn.Parameter]) -> None:
    """Nothing, if all that should train does: a silently dead adapter looks healthy while only the head learns."""
    dead = [name for name, parameter in parameters.items() if parameter.grad is None]
    if dead:
        named = ", ".join(dead[:3]) + (", …" if len(dead) > 3 else "")
        raise EvaluationError(f"{len(dead)} of {len(parameters)} trained tensors got no gradient at step 1: {named}")


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turns every way in which torch runs out of memory into one error, and gives back what the device cached."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or ["no more memory"])[0]
        raise OutOfMemoryError(f"out of memory: {reason}; lower --batch-size or --max-length") from error
    finally:
        torch.cuda.empty_cache()


def _is_out_of_memory(error: Exception) -> bool:
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or "DefaultCPUAllocator: can't allocate memory" in str(error)
