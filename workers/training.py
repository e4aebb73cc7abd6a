"""Trains adapters and head on a frozen backbone: AdamW, linear warm-up and decay over the full horizon, clipping.

The backbone stays in evaluation mode, so the frozen part computes the same for every trial. Checkpoints within a run
are not written here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from autopeft.adapters.head import Classifier
from autopeft.errors import DivergedError, EvaluationError, OutOfMemoryError
from workers.answers import IGNORED
from workers.batches import Rows, TaskRows
from workers.memory import MemoryMeter

WARM_UP_FRACTION = 0.1
WEIGHT_DECAY = 0.01
CLIP_NORM = 1.0
CURVE_POINTS = 50
"""Most points of a stored training curve."""

BetweenSteps = Callable[[int], None]
"""Called with the number of steps done; raises what should end the trial."""

Curve = list[tuple[int, float]]


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


def train(
    classifier: Classifier,
    rows: TaskRows,
    order: Rows,
    learning_rate: float,
    between_steps: BetweenSteps = go_on,
    meter: MemoryMeter | None = None,
) -> Curve:
    """The training curve: (step, mean loss since the point before) pairs; none where nothing is to be trained.

    That is so for a language model without adapters, whose head is its own.

    Args:
        classifier: With its adapters in; trained in place.
        rows: Training rows.
        order: Row numbers of each step, shape [steps, batch size]; its length is the schedule's horizon.
        learning_rate: Peak, of adapters and head.
        between_steps: Called after every step.
        meter: What measures peak memory.

    Raises:
        DivergedError: If the loss is not finite.
        EvaluationError: If an adapter gets no gradient.
    """
    parameters = classifier.trained_parameters()
    if not parameters:
        return []
    device = next(classifier.parameters()).device
    meter = meter or MemoryMeter(classifier, device)
    widest = int(rows.lengths[order].max(1).argmax())
    optimizer = torch.optim.AdamW(parameters.values(), lr=learning_rate, weight_decay=WEIGHT_DECAY, fused=True)
    window = math.ceil(len(order) / CURVE_POINTS)
    curve: Curve = []
    losses: list[Tensor] = []
    for step, chosen in enumerate(order):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * rate_share(step, len(order))
        inputs, labels = rows.batch(chosen, device)
        with precision(device), meter.forward_pass(step == widest):
            loss = loss_of(classifier(inputs, last=said_tokens(labels)), labels)
        losses.append(_step(loss, optimizer, parameters, check=step == 0))
        if step == 0:
            meter.after_step(parameters.values(), optimizer)
        if len(losses) == window or step == len(order) - 1:
            curve.append((step + 1, _finite_mean(losses, step + 1)))
            losses.clear()
        between_steps(step + 1)
    return curve


def _step(
    loss: Tensor, optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], *, check: bool
) -> Tensor:
    """The loss, before the step that it asks for."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if check:
        _require_gradients(parameters)
    nn.utils.clip_grad_norm_(parameters.values(), CLIP_NORM)
    optimizer.step()
    return loss.detach()


def precision(device: torch.device) -> torch.autocast:
    """bfloat16 arithmetic on GPUs that have it; float32 elsewhere."""
    supported = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=supported)


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
