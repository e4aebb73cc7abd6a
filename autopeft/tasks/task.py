"""The values of a task: what is asked, a split of it, and the task as loaded.

Nothing here reads a file or the network; ``loading`` does, and hands a way to read the test split on to ``Task``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from autopeft.errors import TaskError
from autopeft.tasks.kinds import TaskKind
from autopeft.tasks.metric_files import MetricFile
from autopeft.tasks.metrics import OPTION_ACCURACY, find_metric
from autopeft.tasks.templates import template_text

HUB_PREFIX = "hf:"
_BARE_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What is asked for; a path is made absolute, so that every process reads the same files.

    Attributes:
        source: A built-in task, the path of a folder or file, or ``hf:NAME[/CONFIG]``.
        text: Column of the text, prompt or image; None finds it by name.
        text_pair: Column of the second text, or of what stands under the prompt; None finds it by name.
        label: Column of the label or answer; None finds it by name.
        metric: Name of a metric, or ``FILE.py:function``; None takes the task's own.
        chat_template: Of conversations: a built-in one by name, the text of a template, or the path of a file; None
            takes the tokenizer's own.
        max_new_tokens: Most tokens that are generated for a row; None: as many as the longest answer has, within
            bounds.
        train_rows: Most training rows, a class-stratified part; None takes all, or the task's default.
        validation_rows: Most validation rows, likewise.
        seed: Of generation, carving and subsetting; not of training.
    """

    source: str
    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    metric: str | None = None
    chat_template: str | None = None
    max_new_tokens: int | None = None
    train_rows: int | None = None
    validation_rows: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.source, str) or not self.source.strip():
            raise TaskError(
                f"the task is {self.source!r}; expected a built-in task, the path of a folder or file, "
                f"or hf:NAME[/CONFIG]: name one of these"
            )
        object.__setattr__(self, "source", absolute_source(self.source.strip()))
        for name in ("text", "text_pair", "label", "metric", "chat_template"):
            _check(name, getattr(self, name), str, "a name or nothing")
        for name in ("train_rows", "validation_rows", "max_new_tokens"):
            count = getattr(self, name)
            _check(name, count, int, "a whole number of at least 1, or nothing")
            if count is not None and count < 1:
                what = "for the length of the answers" if name == "max_new_tokens" else "to use all rows"
                raise TaskError(f"{name} is {count}; expected at least 1: leave it out {what}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise TaskError(f"the seed of the task is {self.seed!r}; expected a whole number from 0 on")

    def to_json(self) -> dict[str, object]:
        """This value as plain JSON; ``from_json`` is its inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> TaskSpec:
        """The value that ``to_json`` wrote.

        Raises:
            TaskError: If a key is unknown, or ``source`` is missing.
        """
        known = [entry.name for entry in dataclasses.fields(cls)]
        unknown = sorted(set(document) - set(known))
        if unknown or "source" not in document:
            raise TaskError(
                f"a task has the keys {', '.join(sorted(document)) or 'none'}; "
                f"expected source and, where needed, some of {', '.join(known[1:])}"
            )
        return cls(**cast(dict[str, Any], dict(document)))  # __post_init__ checks the types


@dataclass(frozen=True, slots=True)
class Split:
    """Rows in order.

    Attributes:
        texts: The texts; prompts of a language-modelling task (empty for plain text), names of images.
        pairs: Second texts, where the task has pairs.
        labels: Class indices or numbers; of language modelling the index of the right option, 0 without options.
        answers: What a language model is to say after the prompt.
        options: For each row what the answer is compared with; the answer is among them.
        images: Each image as its path, or as the bytes of its file.
        chats: Each conversation as JSON: ``messages``, and ``tools`` where it has some.
        numbers: Number of each row in its source, from 1, for messages.
    """

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: tuple[int, ...] | tuple[float, ...]
    answers: tuple[str, ...] | None = None
    options: tuple[tuple[str, ...], ...] | None = None
    images: tuple[str | bytes, ...] | None = None
    chats: tuple[str, ...] | None = None
    numbers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        columns = [getattr(self, entry.name) for entry in dataclasses.fields(self)]
        counts = {len(column) for column in columns if column is not None}
        if len(counts) > 1:
            raise TaskError(f"a split has columns of {sorted(counts)} rows; expected one label and pair for each text")

    def __len__(self) -> int:
        return len(self.texts)

    def joined(self, other: Split) -> Split:
        """These rows, and those of ``other`` of the same task after them."""
        columns = {}
        for entry in dataclasses.fields(self):
            ours, theirs = getattr(self, entry.name), getattr(other, entry.name)
            columns[entry.name] = ours if ours is None or theirs is None else ours + theirs
        return Split(**columns)

    def take(self, rows: np.ndarray) -> Split:
        """The given rows (indices, in the order given)."""
        columns = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        taken = {name: column and tuple(column[row] for row in rows) for name, column in columns.items()}
        return Split(**taken)


@dataclass(frozen=True, slots=True)
class Task:
    """A task as loaded: search trains on ``train`` and ranks on ``validation``; ``read_test`` is for the end.

    Attributes:
        name: Short, of letters, digits, dot, dash and underscore.
        spec: What was asked.
        label_names: Name of each class; empty where there are none.
        metric: Name of the metric.
        train: Rows to train on.
        validation: Rows to rank on.
        notes: What the user should know: carved splits, absent classes, columns found.
        data_sha256: Of the content of both splits and the label names.
        metric_file: Where the metric is from a file of the user's.
        test_reader: Reads the test split; None where there is none.
    """

    name: str
    spec: TaskSpec
    label_names: tuple[str, ...]
    metric: str
    train: Split
    validation: Split
    notes: tuple[str, ...]
    data_sha256: str
    metric_file: MetricFile | None = None
    test_reader: Callable[[], Split] | None = field(default=None, repr=False, compare=False)

    def read_test(self) -> Split:
        """The test split, read now; nothing else reads it.

        Raises:
            TaskError: If there is no test split with labels.
        """
        if self.test_reader is None:
            raise TaskError(
                f"{self.name} has no test split; expected a file named test beside train: "
                f"put a labelled part of the data there, or score on validation"
            )
        return self.test_reader()

    def laid_out_by(self, template: str) -> Task:
        """The same task, whose hash covers the chat template too; nothing changes where there are no conversations."""
        if self.train.chats is None:
            return self
        both = f"{self.data_sha256}\n{template}".encode("utf-8", "surrogatepass")
        return dataclasses.replace(self, data_sha256=hashlib.sha256(both).hexdigest())

    @property
    def chat_template(self) -> str | None:
        """The text of the chat template that was asked for; None: the tokenizer's own, or no conversations."""
        return self.spec.chat_template and template_text(self.spec.chat_template)

    @property
    def kind(self) -> TaskKind:
        """What is learned, which the metric and the rows say."""
        if find_metric(self.metric).is_causal:
            return TaskKind.CAUSAL_LM
        if self.train.images is not None:
            return TaskKind.IMAGE_CLASSIFICATION
        return TaskKind.REGRESSION if find_metric(self.metric).is_regression else TaskKind.CLASSIFICATION

    @property
    def is_regression(self) -> bool:
        """Whether labels are numbers rather than classes."""
        return find_metric(self.metric).is_regression

    @property
    def quality_floor(self) -> float:
        """Score on validation without having learned anything.

        Of the majority class; of chance for options; 0 for a correlation, an exact match and a likelihood.
        """
        if self.metric == OPTION_ACCURACY and self.validation.options is not None:
            return float(np.mean([1 / len(options) for options in self.validation.options]))
        return find_metric(self.metric).floor(np.asarray(self.validation.labels))

    @property
    def floor_name(self) -> str:
        """What ``quality_floor`` is the score of."""
        if self.kind is not TaskKind.CAUSAL_LM and not self.is_regression:
            return "majority class"
        return "chance" if self.metric == OPTION_ACCURACY else "floor"


def absolute_source(source: str) -> str:
    """``source`` with a path made absolute; a bare word (a built-in task) and ``hf:…`` with a name stay as they are."""
    if source.startswith(HUB_PREFIX):
        name = source.removeprefix(HUB_PREFIX)
        is_path = name.startswith((".", "~", os.sep))
        return HUB_PREFIX + _absolute(name) if is_path else source
    return source if _BARE_NAME.fullmatch(source) else _absolute(source)


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111 (Path.resolve would follow links)


def _check(name: str, value: object, kind: type, expected: str) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
        raise TaskError(f"{name} of the task is {value!r}; expected {expected}")
