"""Scores a language model on answers: held-out loss, the likeliest option, or what it generates.

Loss is the mean over the tokens of all right answers. Options are compared by the sum of their tokens'
log-likelihoods, of two equal ones the first. Generation is greedy, in batches padded on the left, with a cache of keys
and values, and stops after the longest answer there is if nothing else is asked.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autopeft.adapters.head import Classifier
from autopeft.tasks import EXACT_MATCH, GRADERS, LIKELIHOOD, OPTION_ACCURACY, score
from workers.answers import AnswerRows, Sequences
from workers.batches import scoring_batches
from workers.training import BetweenSteps, answer_losses, precision, said_tokens

ANSWER_BATCH = 16
MOST_GENERATED = 256
"""Most tokens that are generated for a row if nothing else is asked …"""

MOST_MATCHED = 64
"""… and where they are to match the answer, which a longer one hardly ever does."""

Numbers = NDArray[np.float64]


@torch.inference_mode()
def score_language(
    classifier: Classifier, rows: AnswerRows, metric: str, between_steps: BetweenSteps, batch_size: int = ANSWER_BATCH
) -> tuple[float, float, Numbers]:
    """The metric, the loss, and the prediction of each row: an option, the grade of its text, or its log-likelihood."""
    if metric == OPTION_ACCURACY and rows.options is not None:
        return _score_options(classifier, rows, rows.options, between_steps, batch_size)
    surprise = negative_log_likelihoods(classifier, rows, between_steps, batch_size)
    counts = rows.label_counts
    loss = float(surprise.sum() / counts.sum())
    if metric != LIKELIHOOD:
        said = _generate_all(classifier, rows, metric, between_steps, batch_size)
        grades = (rows.grader or GRADERS[metric])(said, rows.answers)
        if len(grades) < len(rows):  # one number for all, as a user's metric may give
            return float(grades.mean()), loss, -surprise
        return score(metric, grades, np.ones(len(rows))), loss, grades
    return score(LIKELIHOOD, -surprise, counts), loss, -surprise


def negative_log_likelihoods(
    classifier: Classifier, rows: Sequences, between_steps: BetweenSteps, batch_size: int = ANSWER_BATCH
) -> Numbers:
    """Sum over the tokens of each row's answer, shape [rows]."""
    device = next(classifier.parameters()).device
    found = np.zeros(len(rows))
    for chosen in scoring_batches(rows.lengths, batch_size):
        inputs, labels = rows.batch(chosen, device)
        with precision(classifier):
            logits = classifier(inputs, last=said_tokens(labels))
        losses = answer_losses(logits, labels, reduction="none")
        found[chosen] = losses.double().sum(1).cpu().numpy()
        between_steps(0)
    return found


def most_generated(rows: AnswerRows, metric: str = EXACT_MATCH) -> int:
    """Most tokens that are generated for a row."""
    if rows.most_new is not None:
        return min(rows.most_new, rows.max_length - 1)
    bound = MOST_MATCHED if metric == EXACT_MATCH else MOST_GENERATED
    return int(min(rows.answer_lengths.max(), bound, rows.max_length - 1))


def generate(classifier: Classifier, rows: AnswerRows, chosen: NDArray[np.int64], most: int | None = None) -> list[str]:
    """What the model says to the prompts of some rows, greedily, in at most ``most`` tokens (``most_generated``)."""
    device = next(classifier.parameters()).device
    most = most_generated(rows) if most is None else most
    prompts = rows.prompts(chosen, rows.max_length - most, device)
    with precision(classifier):
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
    classifier: Classifier, rows: AnswerRows, options: Sequences, between_steps: BetweenSteps, batch_size: int
) -> tuple[float, float, Numbers]:
    surprise = negative_log_likelihoods(classifier, options, between_steps, batch_size)
    firsts = np.concatenate([[0], np.cumsum(rows.option_counts)])
    likeliest = [surprise[first:end].argmin() for first, end in pairwise(firsts)]
    right = rows.labels.numpy()
    true = firsts[:-1] + right
    loss = float(surprise[true].sum() / options.answer_lengths[true].sum())
    chosen = np.array(likeliest)
    return score(OPTION_ACCURACY, chosen, right), loss, chosen.astype(np.float64)


def _generate_all(
    classifier: Classifier, rows: AnswerRows, metric: str, between_steps: BetweenSteps, batch_size: int
) -> list[str]:
    """What the model says to every row."""
    found, most = [""] * len(rows), most_generated(rows, metric)
    for chosen in scoring_batches(np.array(rows.starts), batch_size):
        for row, text in zip(chosen, generate(classifier, rows, chosen, most), strict=True):
            found[row] = text
        between_steps(0)
    return found


def _until(tokens: list[int], end: int | None) -> list[int]:
    return tokens[: tokens.index(end)] if end in tokens else tokens
