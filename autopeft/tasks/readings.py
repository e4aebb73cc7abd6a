"""Which kind of task the rows of a source are, and how its tables are turned into rows of that kind.

The kind is what the metric asks for, else what the source declares, else what the columns say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from autopeft.errors import TaskError
from autopeft.tasks.chats import ChatReading, find_chat_column
from autopeft.tasks.columns import LABELS, Columns, find_columns, read_texts, require_columns
from autopeft.tasks.images import find_image_column, read_images
from autopeft.tasks.kinds import TaskKind
from autopeft.tasks.labels import Vocabulary, find_vocabulary, read_labels, require_every_class
from autopeft.tasks.metric_files import MetricFile
from autopeft.tasks.metrics import (
    ALIASES,
    EXACT_MATCH,
    LIKELIHOOD,
    METRICS,
    OPTION_ACCURACY,
    TOKEN_F1,
    find_metric,
    is_causal,
)
from autopeft.tasks.prompts import PromptReading, looks_like_prompts
from autopeft.tasks.tables import Source, Table
from autopeft.tasks.task import Split, TaskSpec

IN_TEXTS: Mapping[str | None, str] = MappingProxyType({"f1": TOKEN_F1})
"""Metrics that classes and texts have by the same name."""

SHORT_ANSWER_WORDS = 8
"""A task whose answers are mostly at most so long is ranked by exact match."""


class Reading(Protocol):
    """How the tables of one task become rows."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes; none of a regression and of language modelling."""

    @property
    def label(self) -> str:
        """Column without which a row cannot be scored."""

    @property
    def note(self) -> str:
        """What the user should know of it."""

    def examples(self, table: Table, held: frozenset[int] | None = None) -> Split:
        """The rows of ``table``; the classes of a split that is scored must be among those that train holds."""

    def require_trainable(self, train: Split, origin: str) -> None:
        """Nothing, if these rows can be trained on."""


@dataclass(frozen=True, slots=True)
class ClassReading:
    """Texts or images with a class or a number each; ``folder`` is where paths of images start."""

    columns: Columns
    vocabulary: Vocabulary
    of_images: bool = False
    folder: Path | None = None

    @property
    def label(self) -> str:
        """Column of the label."""
        return self.columns.label

    @property
    def note(self) -> str:
        """The columns."""
        return f"columns: {self.columns}"

    def examples(self, table: Table, held: frozenset[int] | None = None) -> Split:
        """The rows of ``table``."""
        require_columns(self.columns, table)
        labels = read_labels(table, self.columns.label, self.vocabulary, held)
        if self.of_images:
            names, images = read_images(table, self.columns.text, self.folder)
            return Split(names, None, labels, images=images)
        pair = self.columns.text_pair
        pairs = None if pair is None else read_texts(table, pair, allow_empty=True)
        return Split(read_texts(table, self.columns.text), pairs, labels)

    def require_trainable(self, train: Split, origin: str) -> None:
        """Nothing, if every class has a row."""
        require_every_class(train.labels, self.vocabulary, origin)


@dataclass(frozen=True, slots=True)
class AnswerReading:
    """Prompts with answers, or plain text."""

    prompts: PromptReading

    @property
    def vocabulary(self) -> Vocabulary:
        """No classes."""
        return Vocabulary(())

    @property
    def label(self) -> str:
        """Column of the answer."""
        return self.prompts.columns.answer

    @property
    def note(self) -> str:
        """The columns, and where options come from."""
        options = self.prompts.options
        known = f"; options: {', '.join(options.known)}" if options and options.known else ""
        return f"columns: {self.prompts.columns}{known}"

    def examples(self, table: Table, held: frozenset[int] | None = None) -> Split:
        """The rows of ``table``."""
        return self.prompts.examples(table)

    def require_trainable(self, train: Split, origin: str) -> None:
        """Nothing: any text can be learned."""


def find_reading(source: Source, spec: TaskSpec) -> tuple[Reading, str]:
    """The reading that the source and the training rows call for, and the metric.

    Raises:
        TaskError: If a column is missing, or the metric and the rows do not fit.
    """
    kind = find_kind(source, spec)
    if kind is TaskKind.CAUSAL_LM and (chats := ChatReading.of(spec, source.train)) is not None:
        return chats, _chat_metric(source, spec, chats)
    if kind is TaskKind.CAUSAL_LM:
        reading = AnswerReading(PromptReading.of(spec, source.train))
        return reading, _answer_metric(source, spec, reading)
    return _find_class_reading(source, spec, kind)


def find_kind(source: Source, spec: TaskSpec) -> TaskKind:
    """The kind of task; regression is told from classification by the labels, later."""
    if spec.metric is not None and is_causal(_asked(spec) or ""):
        return TaskKind.CAUSAL_LM
    if source.kind is not None:
        return source.kind
    if find_image_column(source.train, spec.text) is not None:
        return TaskKind.IMAGE_CLASSIFICATION
    if spec.label is None and find_chat_column(source.train, spec.text) is not None:
        return TaskKind.CAUSAL_LM
    if not source.label_names and not source.columns and looks_like_prompts(spec, source.train, LABELS):
        return TaskKind.CAUSAL_LM
    return TaskKind.CLASSIFICATION


def require_fit(metric: str, kind: TaskKind, classes: int) -> None:
    """Nothing, if a task of that kind can be ranked by the metric.

    Raises:
        TaskError: If it cannot; the message names those that fit.
    """
    if not find_metric(metric).fits(kind):
        plain = {TaskKind.REGRESSION: "numbers", TaskKind.CAUSAL_LM: "texts"}
        fitting = ", ".join(name for name in METRICS if METRICS[name].fits(kind))
        labels = plain.get(kind, f"{classes} classes")
        raise TaskError(f"the metric is {metric} and the labels are {labels}; expected one of {fitting}")
    if metric == "f1" and classes != 2:
        raise TaskError(f"f1 needs 2 classes and the labels are {classes}; choose macro_f1")


def _find_class_reading(source: Source, spec: TaskSpec, kind: TaskKind) -> tuple[Reading, str]:
    of_images = kind is TaskKind.IMAGE_CLASSIFICATION
    declared = source.columns
    if of_images and (column := find_image_column(source.train, spec.text)) is not None:
        declared = {**declared, "text": column}
    wanted = _asked(spec) or _declared_metric(source)
    columns = find_columns(spec, declared, source.train)
    regression = find_metric(wanted).is_regression if wanted else False if of_images else None
    if kind is TaskKind.REGRESSION:
        regression = True
    vocabulary = find_vocabulary(source.train, columns.label, source.label_names, regression)
    metric = wanted or ("pearson_spearman" if vocabulary.is_regression else "accuracy")
    found = TaskKind.REGRESSION if vocabulary.is_regression else TaskKind.CLASSIFICATION
    require_fit(metric, found, len(vocabulary.names))
    return ClassReading(columns, vocabulary, of_images, source.folder), metric


def _answer_metric(source: Source, spec: TaskSpec, reading: AnswerReading) -> str:
    """The metric asked for or declared, else by what the answers are."""
    has_options = reading.prompts.options is not None
    wanted = IN_TEXTS.get(asked := _asked(spec) or _declared_metric(source), asked)
    if wanted is None:
        wanted = OPTION_ACCURACY if has_options else EXACT_MATCH if _is_short(reading, source.train) else LIKELIHOOD
    require_fit(wanted, TaskKind.CAUSAL_LM, 0)
    if wanted == OPTION_ACCURACY and not has_options:
        raise TaskError(
            f"the metric is {wanted}, and {source.train.origin} has no options to choose from; expected a column of "
            f"lists (options or choices), or few distinct answers: choose {EXACT_MATCH} or {LIKELIHOOD}"
        )
    if wanted not in (OPTION_ACCURACY, LIKELIHOOD) and not reading.prompts.has_answers:
        raise TaskError(f"the metric is {wanted}, and {source.train.origin} is plain text; choose {LIKELIHOOD}")
    return wanted


def _chat_metric(source: Source, spec: TaskSpec, reading: ChatReading) -> str:
    """The metric asked for or declared, else by the length of the last assistant turns."""
    wanted = IN_TEXTS.get(asked := _asked(spec) or _declared_metric(source), asked)
    if wanted is None:
        wanted = EXACT_MATCH if _are_short(reading.examples(source.train).answers or ()) else LIKELIHOOD
    require_fit(wanted, TaskKind.CAUSAL_LM, 0)
    if wanted == OPTION_ACCURACY:
        raise TaskError(
            f"the metric is {wanted}, and conversations have no options to choose from; choose {EXACT_MATCH} or "
            f"{LIKELIHOOD}"
        )
    return wanted


def _is_short(reading: AnswerReading, train: Table) -> bool:
    return reading.prompts.has_answers and _are_short([str(value) for value in train.columns[reading.label]])


def _are_short(answers: Sequence[str]) -> bool:
    lengths = sorted(len(answer.split()) for answer in answers)
    return lengths[len(lengths) * 9 // 10] <= SHORT_ANSWER_WORDS


def _asked(spec: TaskSpec) -> str | None:
    """The name of the metric that is asked for; one from a file has its function's."""
    file = None if spec.metric is None else MetricFile.find(spec.metric)
    return spec.metric if file is None else file.metric


def _declared_metric(source: Source) -> str | None:
    """The first declared metric that is known here."""
    names = (ALIASES.get(name, name) for name in source.metrics)
    return next((name for name in names if name in METRICS), None)
