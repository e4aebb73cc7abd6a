"""How a generated text is graded against its reference: one number in [0, 1] a row, higher is better.

``exact_match`` strips white space; ``token_f1`` is SQuAD's overlap of words (arXiv 1606.05250), of lower case, without
punctuation and articles; ``number`` compares the last number of both, as GSM8K's answers are (arXiv 2110.14168). Every
reference is one text; where a task has several right answers, a metric of its own can know them.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from autopeft.errors import TaskError
from autopeft.tasks.columns import rows_named
from autopeft.tasks.metrics import EXACT_MATCH, NUMBER, TOKEN_F1
from autopeft.tasks.task import Split

Grades = NDArray[np.float64]
Grader = Callable[[Sequence[str], Sequence[str]], Grades]
"""Generated texts and references, n each → their grades, shape [n], in [0, 1]."""

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-+]?\.\d+")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def last_number(text: str) -> Decimal | None:
    """The last number in a text, commas between thousands aside; None without one."""
    found = _NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "")) if found else None


def words(text: str) -> list[str]:
    """The words that ``token_f1`` compares."""
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def overlap(said: str, reference: str) -> float:
    """Harmonic mean of the shares of words that are in both; of two texts without words 1."""
    left, right = words(said), words(reference)
    if not left or not right:
        return float(left == right)
    shared = sum((Counter(left) & Counter(right)).values())
    return 2 * shared / (len(left) + len(right))


def _matches(said: str, reference: str) -> float:
    return float(said.strip() == reference.strip())


def _same_number(said: str, reference: str) -> float:
    found = last_number(said)
    return float(found is not None and found == last_number(reference))


def _by_row(grade: Callable[[str, str], float]) -> Grader:
    return lambda said, references: np.array([grade(*pair) for pair in zip(said, references, strict=True)], dtype=float)


GRADERS: Mapping[str, Grader] = MappingProxyType(
    {EXACT_MATCH: _by_row(_matches), TOKEN_F1: _by_row(overlap), NUMBER: _by_row(_same_number)}
)
"""Of each metric that generates."""


def require_gradable(metric: str, split: Split, origin: str) -> None:
    """Nothing, if the references of ``split`` can be graded against.

    Raises:
        TaskError: If ``metric`` is ``number`` and some hold none; with rows.
    """
    if metric != NUMBER:
        return
    numbers = split.numbers or range(1, len(split) + 1)
    bad = [row for row, text in zip(numbers, split.answers or (), strict=True) if last_number(text) is None]
    if bad:
        raise TaskError(
            f"{rows_named(bad)} of {origin}: the answer holds no number, and the metric is {metric}; "
            f"expected one in every answer: choose {EXACT_MATCH} or {TOKEN_F1}, or correct the rows"
        )
