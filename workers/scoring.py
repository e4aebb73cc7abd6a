"""Scores a model on a split, in evaluation mode: predictions, mean loss, and the task's metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from autopeft.adapters.head import Classifier
from autopeft.errors import DivergedError
from autopeft.tasks import EXACT_MATCH, NUMBER, OPTION_ACCURACY, TaskKind, score
from workers.answers import AnswerRows
from workers.batches import TaskRows, scoring_batches
from workers.language import ANSWER_BATCH, score_language
from workers.training import BetweenSteps, go_on, loss_of, precision

SCORING_BATCH = 32
MOST_LOSS = 700.0
"""Beyond it exp overflows."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What a model makes of a split.

    Attributes:
        value: The metric.
        loss: Mean loss a row; of language modelling, a token.
        predictions: Class index or number of each row, in data order; of language modelling see ``workers.language``.
        correct: 1 or 0 a row, in data order; empty where rows are not right or wrong.
    """

    value: float
    loss: float
    predictions: Sequence[float]
    correct: tuple[int, ...]

    def losses(self, kind: TaskKind) -> dict[str, float]:
        """The loss, and of a language model its perplexity, for a measurement's values."""
        perplexity = {"perplexity": math.exp(min(self.loss, MOST_LOSS))} if kind is TaskKind.CAUSAL_LM else {}
        return {"loss": self.loss, **perplexity}


@torch.inference_mode()
def score_rows(
    classifier: Classifier,
    rows: TaskRows,
    metric: str,
    between_steps: BetweenSteps = go_on,
    halvings: int = 0,
) -> Scored:
    """The model's score on ``rows``; the model is in evaluation mode always.

    Batches are halved ``halvings`` times, where a whole one did not fit into memory.

    Raises:
        DivergedError: If the loss is not finite.
    """
    if isinstance(rows, AnswerRows):
        return _score_answers(classifier, rows, metric, between_steps, max(1, ANSWER_BATCH >> halvings))
    device = next(classifier.parameters()).device
    outputs = torch.zeros(len(rows))
    losses = torch.zeros(len(rows))
    for chosen in scoring_batches(rows.lengths, max(1, SCORING_BATCH >> halvings)):
        inputs, labels = rows.batch(chosen, device)
        with precision(classifier):
            logits = classifier(inputs)
        where = torch.from_numpy(chosen)
        outputs[where], losses[where] = said_of(logits, labels)
        between_steps(0)
    return scored(outputs, losses, rows, metric)


def said_of(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What a model says of some rows, class index or number, and the loss of each; shapes [rows], on the CPU."""
    outputs = logits.squeeze(-1) if labels.is_floating_point() else logits.argmax(-1).float()
    return outputs.cpu(), loss_of(logits, labels, reduction="none").float().cpu()


def _finite(loss: float) -> float:
    if not math.isfinite(loss):
        raise DivergedError(f"the loss on the scored rows is {loss}; expected a finite number: lower learning rates")
    return loss


def _score_answers(
    classifier: Classifier, rows: AnswerRows, metric: str, between_steps: BetweenSteps, batch_size: int
) -> Scored:
    value, loss, predictions = score_language(classifier, rows, metric, between_steps, batch_size)
    right = {OPTION_ACCURACY: rows.labels.numpy(), EXACT_MATCH: np.ones(len(rows)), NUMBER: np.ones(len(rows))}
    correct = tuple((predictions == right[metric]).astype(int).tolist()) if metric in right else ()
    return Scored(value, _finite(loss), predictions.tolist(), correct)


def scored(outputs: torch.Tensor, losses: torch.Tensor, rows: TaskRows, metric: str) -> Scored:
    """The score of what was said of all rows, in data order.

    Raises:
        DivergedError: If the loss is not finite.
    """
    loss, labels = _finite(float(losses.double().mean())), rows.labels.numpy()
    if rows.labels.is_floating_point():
        return Scored(score(metric, outputs.numpy(), labels), loss, outputs.tolist(), ())
    classes = outputs.long()
    correct = tuple((classes == rows.labels).long().tolist())
    return Scored(score(metric, classes.numpy(), labels), loss, classes.tolist(), correct)
