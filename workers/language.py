"""Scores a language model on answers: held-out loss, the likeliest option, or what it generates.

Loss is the mean over the tokens of all right answers. Options are compared by the sum of their tokens'
log-likelihoods, of two equal ones the first. Generation is greedy and stops after the longest answer there is.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autopeft.adapters.head import Classifier
from autopeft.tasks import EXACT_MATCH, LIKELIHOOD, OPTION_ACCURACY, score
from workers.answers import AnswerRows, Sequences
from workers.batches import scoring_batches
from workers.training import BetweenSteps, answer_losses, precision, said_tokens

ANSWER_BATCH = 16
MOST_GENERATED = 64
"""Most tokens that are generated for a row."""

Numbers = NDArray[np.float64]


@torch.inference_mode()
def score_language(
    classifier: Classifier, rows: AnswerRows, metric: str, between_steps: BetweenSteps
) -> tuple[float, float, Numbers]:
    """The metric, the loss, and the prediction of each row: an option, whether it matched, or its log-likelihood."""
    if metric == OPTION_ACCURACY and rows.options is not None:
        return _score_options(classifier, rows, rows.options, between_steps)
    surprise = negative_log_likelihoods(classifier, rows, between_steps)
    counts = rows.answer_lengths
    loss = float(surprise.sum() / counts.sum())
    if metric == EXACT_MATCH:
        matched = _matches(classifier, rows, between_steps)
        return score(EXACT_MATCH, matched, np.ones(len(rows))), loss, matched
    return score(LIKELIHOOD, -surprise, counts), loss, -surprise


def negative_log_likelihoods(classifier: Classifier, rows: Sequences, between_steps: BetweenSteps) -> Numbers:
    """Sum over the tokens of each row's answer, shape [rows]."""
    device = next(classifier.parameters()).device
    found = np.zeros(len(rows))
    for chosen in scoring_batches(rows.lengths, ANSWER_BATCH):
        inputs, labels = rows.batch(chosen, device)
        with precision(device):
            logits = classifier(inputs, last=said_tokens(labels))
        losses = answer_losses(logits, labels, reduction="none")
        found[chosen] = losses.double().sum(1).cpu().numpy()
        between_steps(0)
    return found


def generate(classifier: Classifier, rows: AnswerRows, chosen: NDArray[np.int64]) -> list[str]:
    """What the model says to the prompts of some rows, greedily."""
    device = next(classifier.parameters()).device
    most = int(min(rows.answer_lengths.max(), MOST_GENERATED, rows.max_length - 1))
    prompts = rows.prompts(chosen, rows.max_length - most, device)
    with precision(device):
        said: Tensor = classifier.model.generate(
            **prompts,
            max_new_tokens=most,
            do_sample=False,
            num_beams=1,
            use_cache=True,
            pad_token_id=rows.padding,
            eos_token_id=rows.end,
        )
    return [rows.decode(_until(row, rows.end)) for row in said[:, prompts["input_ids"].shape[1] :].tolist()]


def _score_options(
    classifier: Classifier, rows: AnswerRows, options: Sequences, between_steps: BetweenSteps
) -> tuple[float, float, Numbers]:
    surprise = negative_log_likelihoods(classifier, options, between_steps)
    firsts = np.concatenate([[0], np.cumsum(rows.option_counts)])
    likeliest = [surprise[first:end].argmin() for first, end in pairwise(firsts)]
    right = rows.labels.numpy()
    true = firsts[:-1] + right
    loss = float(surprise[true].sum() / options.answer_lengths[true].sum())
    chosen = np.array(likeliest)
    return score(OPTION_ACCURACY, chosen, right), loss, chosen.astype(np.float64)


def _matches(classifier: Classifier, rows: AnswerRows, between_steps: BetweenSteps) -> Numbers:
    """1 where the generated text is the answer, white space around it aside."""
    found = np.zeros(len(rows))
    for chosen in scoring_batches(np.array(rows.starts), ANSWER_BATCH):
        for row, text in zip(chosen, generate(classifier, rows, chosen), strict=True):
            found[row] = float(text.strip() == rows.answers[row].strip())
        between_steps(0)
    return found


def _until(tokens: list[int], end: int | None) -> list[int]:
    return tokens[: tokens.index(end)] if end in tokens else tokens
