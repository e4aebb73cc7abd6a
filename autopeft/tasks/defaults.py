"""How long and how fast a trial trains when the user does not say: measured for built-in tasks, by size for others.

Language models get a lower range of learning rates, as adapters on decoders are commonly trained with.

Weight decay, warm-up and clipping are the trainer's; they do not depend on the task.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from autopeft.tasks.chats import layout_words
from autopeft.tasks.kinds import TaskKind
from autopeft.tasks.task import Split, Task

TOKENS_A_WORD = 1.5
SHORTEST, LONGEST, LONGEST_CHAT = 32, 256, 1024


@dataclass(frozen=True, slots=True)
class TrainingDefaults:
    """Training choices that suit a task.

    Attributes:
        epochs: Passes over the training rows.
        batch_size: Rows a step.
        max_length: Most tokens of a row; longer rows are cut.
        learning_rate: Range for the search, log scale.
        control_learning_rate: Of every trial of the control.
    """

    epochs: float
    batch_size: int
    max_length: int
    learning_rate: tuple[float, float]
    control_learning_rate: float


ASPECTS = TrainingDefaults(
    epochs=2.0, batch_size=16, max_length=64, learning_rate=(1e-3, 1e-2), control_learning_rate=3e-3
)


def training_defaults(task: Task) -> TrainingDefaults:
    """The defaults for ``task``: as tuned for the built-in one, else by the number and the length of its rows."""
    if task.spec.source == "aspects":
        return ASPECTS
    rows = len(task.train)
    generates = task.kind is TaskKind.CAUSAL_LM
    return TrainingDefaults(
        epochs=_epochs(rows),
        batch_size=16 if rows < 5_000 else 32,
        max_length=_max_length(task.train),
        learning_rate=(1e-4, 3e-3) if generates else (3e-4, 6e-3),
        control_learning_rate=1e-3 if generates else 2e-3,
    )


def _epochs(rows: int) -> float:
    """More passes over few rows, so that small data still makes some hundreds of steps."""
    if rows < 1_000:
        return 6.0
    return 3.0 if rows < 20_000 else 1.0


def _max_length(split: Split) -> int:
    """Tokens that hold 99 of 100 rows, guessed from words: a multiple of 16."""
    words = [len(text.split()) for text in split.texts]
    for column in (split.pairs, split.answers):
        if column is not None:
            words = [count + len(text.split()) for count, text in zip(words, column, strict=True)]
    if split.chats is not None:
        words = [count + layout_words(chat) for count, chat in zip(words, split.chats, strict=True)]
    tokens = TOKENS_A_WORD * float(np.quantile(words, 0.99)) + 4
    longest = LONGEST if split.chats is None else LONGEST_CHAT
    return min(max(16 * math.ceil(tokens / 16), SHORTEST), longest)
