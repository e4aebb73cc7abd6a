"""Scores a model on a split, in evaluation mode: predictions, mean loss, and the task's metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from autopeft.adapters.head import Classifier
from autopeft.errors import DivergedError
from autopeft.tasks import EXACT_MATCH, OPTION_ACCURACY, score
from workers.answers import AnswerRows
from workers.batches import TaskRows, scoring_batches
from workers.language import score_language
from workers.training import BetweenSteps, go_on, loss_of, precision

SCORING_BATCH = 32


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


@torch.inference_mode()
def score_rows(classifier: Classifier, rows: TaskRows, metric: str, between_steps: BetweenSteps = go_on) -> Scored:
    """The model's score on ``rows``; the model is in evaluation mode always.

    Raises:
        DivergedError: If the loss is not finite.
    """
    if isinstance(rows, AnswerRows):
        return _score_answers(classifier, rows, metric, between_steps)
    device = next(classifier.parameters()).device
    outputs = torch.zeros(len(rows))
    losses = torch.zeros(len(rows))
    for chosen in scoring_batches(rows.lengths, SCORING_BATCH):
        inputs, labels = rows.batch(chosen, device)
        with precision(device):
            logits = classifier(inputs)
        where = torch.from_numpy(chosen)
        losses[where] = loss_of(logits, labels, reduction="none").float().cpu()
        outputs[where] = (logits.squeeze(-1) if labels.is_floating_point() else logits.argmax(-1).float()).cpu()
        between_steps(0)
    return _scored(outputs, rows, metric, _finite(float(losses.double().mean())))


def _finite(loss: float) -> float:
    if not math.isfinite(loss):
        raise DivergedError(f"the loss on the scored rows is {loss}; expected a finite number: lower learning rates")
    return loss


def _score_answers(classifier: Classifier, rows: AnswerRows, metric: str, between_steps: BetweenSteps) -> Scored:
    value, loss, predictions = score_language(classifier, rows, metric, between_steps)
    right = {OPTION_ACCURACY: rows.labels.numpy(), EXACT_MATCH: np.ones(len(rows))}
    correct = tuple((predictions == right[metric]).astype(int).tolist()) if metric in right else ()
    return Scored(value, _finite(loss), predictions.tolist(), correct)


def _scored(outputs: torch.Tensor, rows: TaskRows, metric: str, loss: float) -> Scored:
    labels = rows.labels.numpy()
    if rows.labels.is_floating_point():
        return Scored(score(metric, outputs.numpy(), labels), loss, outputs.tolist(), ())
    classes = outputs.long()
    correct = tuple((classes == rows.labels).long().tolist())
    return Scored(score(metric, classes.numpy(), labels), loss, classes.tolist(), correct)
