"""The built-in task ``aspects``, generated: the sentiment about one aspect of a text of two clauses, with negation.

A text says something about two things ("The pool was far from superb, unlike the bar."); the pair names a thing, and
the label says whether the text speaks well of it, badly, or not of it at all (a fifth of the rows). Negators turn an
adjective around, and in some texts the second clause only refers to the first. So the answer needs binding and
composition, which a head on frozen mean-pooled embeddings cannot give. No licence, no download, no real opinions.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from autopeft.errors import TaskError
from autopeft.tasks.task import Split

BUILTIN_TASKS: Mapping[str, str] = MappingProxyType(
    {"aspects": "sentiment about one aspect of a text, with negation: generated, three classes, English"}
)
ASPECT_LABELS = ("negative", "positive", "not mentioned")
MOST_ROWS = 50_000


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ASPECTS = _words("pool bar staff room bed view food wine coffee bread soup menu music garden lobby price bill service")
_PRAISE = _words(
    "great superb lovely perfect excellent wonderful brilliant charming pleasant fantastic splendid delightful"
)
_BLAME = _words("awful dreadful terrible poor horrible bad nasty disgusting miserable boring ugly disappointing")
_NEGATORS = ("not", "never", "hardly", "far from", "anything but", "by no means")
_CLAUSES = ("the {} was {}", "we found the {} {}", "the {} seemed {}", "I thought the {} was {}")
_CONNECTIVES = (", but ", ", and ", "; ", ", while ")
_SAME = (", and so was the {}", "; the same goes for the {}", ", just like the {}")
_OPPOSITE = (", unlike the {}", "; the {} was the opposite", ", in contrast to the {}")
_NEGATED_SHARE = 0.3
_REFERRING_SHARE = 0.33
_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class AspectSizes:
    """Rows of the three splits.

    Tuned with MiniLM, 2 epochs in batches of 16: see ``TrainingDefaults`` of the task; 600 rows of validation hold
    the standard error of an accuracy of .85 at .015.
    """

    train: int = 840
    validation: int = 600
    test: int = 1000


def generate_split(split: str, rows: int, seed: int) -> Split:
    """``rows`` rows of a split; fewer rows are the first of more, and no text is in two splits.

    Args:
        split: train, validation or test.
        rows: At most ``MOST_ROWS``.
        seed: Another seed gives other texts.

    Raises:
        TaskError: If more rows are asked for than the generator has.
    """
    if rows > MOST_ROWS:
        raise TaskError(f"{rows:,} rows of aspects were asked for; expected at most {MOST_ROWS:,}: ask for fewer")
    texts, pairs, labels = [], [], []
    generator = random.Random(f"aspects/{split}/{seed}")
    seen: set[str] = set()
    for label in _labels(rows, generator):
        text, aspect = _fresh_row(label, split, seen, generator)
        seen.add(text)
        texts.append(text)
        pairs.append(aspect)
        labels.append(label)
    return Split(tuple(texts), tuple(pairs), tuple(labels))


def _labels(rows: int, generator: random.Random) -> Iterator[int]:
    """Labels in shuffled blocks of five: two negative, two positive, one not mentioned."""
    block: list[int] = []
    for _ in range(rows):
        if not block:
            block = [0, 0, 1, 1, 2]
            generator.shuffle(block)
        yield block.pop()


def _fresh_row(label: int, split: str, seen: set[str], generator: random.Random) -> tuple[str, str]:
    while True:
        text, aspect = _row(label, generator)
        if _owner(text) == split and text not in seen:
            return text, aspect


def _owner(text: str) -> str:
    """The split that a text belongs to: by its hash, so that no split needs to know the others."""
    return _SPLITS[int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) % len(_SPLITS)]


def _row(label: int, generator: random.Random) -> tuple[str, str]:
    """A text and the aspect that is asked for, so that ``label`` is right."""
    first, second, absent = generator.sample(_ASPECTS, 3)
    asked = generator.randrange(2)
    positive = [generator.random() < 0.5, generator.random() < 0.5]
    reference = None
    if generator.random() < _REFERRING_SHARE:
        same = generator.random() < 0.5
        reference = generator.choice(_SAME if same else _OPPOSITE)
        positive[1] = positive[0] if same else not positive[0]
    if label < 2 and positive[asked] != (label == 1):
        positive = [not positive[0], not positive[1]]
    text = _clause(first, positive[0], generator)
    if reference is None:
        text += generator.choice(_CONNECTIVES) + _clause(second, positive[1], generator)
    else:
        text += reference.format(second)
    return f"{text[0].upper()}{text[1:]}.", absent if label == 2 else (first, second)[asked]


def _clause(aspect: str, positive: bool, generator: random.Random) -> str:
    negated = generator.random() < _NEGATED_SHARE
    quality = generator.choice(_PRAISE if positive != negated else _BLAME)
    if negated:
        quality = f"{generator.choice(_NEGATORS)} {quality}"
    return generator.choice(_CLAUSES).format(aspect, quality)
