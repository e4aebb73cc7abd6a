"""From what is asked to a task: find the source, read train and validation, carve and cut, and say what was done.

The test split is only ever read by the function that ``Task.read_test`` calls.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from autopeft.errors import TaskError
from autopeft.tasks.builtin import ASPECT_LABELS, BUILTIN_TASKS, AspectSizes, generate_split
from autopeft.tasks.files import read_files
from autopeft.tasks.grading import require_gradable
from autopeft.tasks.hub import is_saved, read_hub, read_saved
from autopeft.tasks.kinds import TaskKind
from autopeft.tasks.labels import Vocabulary
from autopeft.tasks.metric_files import MetricFile
from autopeft.tasks.metrics import ALIASES, find_metric, is_causal
from autopeft.tasks.readings import Reading, find_reading, require_fit
from autopeft.tasks.selection import carve, take_part
from autopeft.tasks.tables import Source, Table
from autopeft.tasks.task import HUB_PREFIX, Split, Task, TaskSpec
from autopeft.tasks.templates import read_template

SIZES = AspectSizes()


def load_task(spec: TaskSpec) -> Task:
    """The task that ``spec`` asks for, without its test rows.

    Raises:
        TaskError: If there is no such task, or its data cannot be used.
    """
    if spec.metric is not None:
        spec = replace(spec, metric=_metric_of(spec.metric))
    if spec.chat_template is not None:
        spec = replace(spec, chat_template=read_template(spec.chat_template))
    if spec.source in BUILTIN_TASKS:
        return _load_aspects(spec)
    source, spec = _find_source(spec)
    return _assemble(source, spec)


def _metric_of(asked: str) -> str:
    """The metric asked for by its name here; one from a file with its absolute path and its hash."""
    if (file := MetricFile.find(asked)) is not None:
        return str(file)
    return find_metric(ALIASES.get(asked, asked)).name


def _load_aspects(spec: TaskSpec) -> Task:
    named = [name for name in ("text", "text_pair", "label") if getattr(spec, name) is not None]
    if named:
        raise TaskError(
            f"{' and '.join(named)} named for the built-in task aspects; expected none: its columns are fixed"
        )
    if spec.chat_template is not None:
        raise TaskError("a chat template is given for the built-in task aspects, which holds no conversations")
    if spec.metric is not None and MetricFile.find(spec.metric) is not None:
        raise TaskError(f"the metric is {spec.metric}, and aspects has no answers to generate; choose accuracy")
    metric = spec.metric or "accuracy"
    require_fit(metric, TaskKind.CLASSIFICATION, len(ASPECT_LABELS))
    train = generate_split("train", spec.train_rows or SIZES.train, spec.seed)
    validation = generate_split("validation", spec.validation_rows or SIZES.validation, spec.seed)
    _require_every_label(train, validation)
    notes = (f"aspects: {BUILTIN_TASKS['aspects']}, data seed {spec.seed}",)
    return Task(
        name="aspects",
        spec=spec,
        label_names=ASPECT_LABELS,
        metric=metric,
        train=train,
        validation=validation,
        notes=notes,
        data_sha256=_digest(ASPECT_LABELS, train, validation),
        test_reader=partial(generate_split, "test", SIZES.test, spec.seed),
    )


def _find_source(spec: TaskSpec) -> tuple[Source, TaskSpec]:
    """The source, and the spec with its path made absolute."""
    is_hub, name = spec.source.startswith(HUB_PREFIX), spec.source.removeprefix(HUB_PREFIX)
    path = Path(name).absolute()
    if is_hub and not (name and path.is_dir()):
        return read_hub(name), spec
    if not path.exists():
        raise TaskError(
            f"there is no task and no file {spec.source!r}; expected a built-in task ({', '.join(BUILTIN_TASKS)}), "
            f"the path of a folder or of a .jsonl, .json, .csv, .tsv, .parquet or .txt file, or hf:NAME[/CONFIG]"
        )
    source = read_saved(path) if is_saved(path) else read_files(path)
    return source, replace(spec, source=str(path))


def _assemble(source: Source, spec: TaskSpec) -> Task:
    _require_rows(source.train)
    reading, metric = find_reading(source, spec)
    vocabulary = reading.vocabulary
    train = reading.examples(source.train)
    reading.require_trainable(train, source.train.origin)
    _require_chats(train, spec)
    notes = [reading.note]
    if source.validation is None:
        train, validation = _carved(train, vocabulary, spec, notes)
    else:
        _require_rows(source.validation)
        validation = reading.examples(source.validation, _held(train))
    train = _cut(train, spec.train_rows, "training", vocabulary, spec.seed, notes)
    validation = _cut(validation, spec.validation_rows, "validation", vocabulary, spec.seed, notes)
    if not is_causal(metric):
        _require_scorable(train, validation, vocabulary, notes)
    else:
        require_gradable(metric, validation, "the validation rows")
    return Task(
        name=_name(source.name),
        spec=spec,
        label_names=vocabulary.names,
        metric=metric,
        train=train,
        validation=validation,
        notes=tuple(notes),
        data_sha256=_digest(vocabulary.names, train, validation),
        metric_file=(spec.metric and MetricFile.find(spec.metric)) or None,
        test_reader=_test_reader(source, reading, train),
    )


def _held(train: Split) -> frozenset[int]:
    """Classes that the training rows hold."""
    return frozenset(int(label) for label in train.labels)


def _test_reader(source: Source, reading: Reading, train: Split) -> Callable[[], Split] | None:
    """A function that reads the test rows; it keeps no other rows alive."""
    if source.test is None:
        return None
    return partial(_read_test, source.name, source.test, reading, _held(train))


def _read_test(name: str, read: Callable[[], Table], reading: Reading, held: frozenset[int]) -> Split:
    table = read()
    _require_rows(table)
    labels = table.columns.get(reading.label)
    if labels is None or all(label in (-1, -1.0, None) for label in labels):
        raise TaskError(
            f"the test rows of {name} have no labels (they are held back, or were never given); expected a "
            f"label in every row: carve a part of train off as test before the search, or score on validation"
        )
    return reading.examples(table, held)


def _carved(train: Split, vocabulary: Vocabulary, spec: TaskSpec, notes: list[str]) -> tuple[Split, Split]:
    stay, leave = carve(np.asarray(train.labels), vocabulary.is_regression, spec.seed)
    if not len(leave) or not len(stay):
        raise TaskError(
            f"{len(train)} training rows are too few to carve a validation split from; expected two of a class: "
            f"add rows, or a file named validation"
        )
    notes.append(f"no validation split: {len(leave):,} of {len(train):,} training rows carved, data seed {spec.seed}")
    return train.take(stay), train.take(leave)


def _cut(split: Split, rows: int | None, which: str, vocabulary: Vocabulary, seed: int, notes: list[str]) -> Split:
    if rows is None or rows == len(split):
        return split
    if rows > len(split):
        notes.append(f"{rows:,} {which} rows asked for, all {len(split):,} taken")
        return split
    if which == "training" and rows < len(vocabulary.names):
        raise TaskError(
            f"{rows} training rows for {len(vocabulary.names)} classes; expected at least one of each: "
            f"ask for {len(vocabulary.names)} or more"
        )
    shares = "classes in proportion, " if vocabulary.names else ""
    notes.append(f"{rows:,} of {len(split):,} {which} rows taken, {shares}data seed {seed}")
    return split.take(take_part(np.asarray(split.labels), rows, vocabulary.is_regression, seed))


def _require_rows(table: Table) -> None:
    if len(table) == 0:
        raise TaskError(f"{table.origin} holds no rows; expected rows with a text and a label: check how it was made")


def _require_chats(train: Split, spec: TaskSpec) -> None:
    if spec.chat_template is not None and train.chats is None:
        raise TaskError(
            "a chat template is given, and the rows are no conversations; expected a column messages or conversations: "
            "leave --chat-template out, or name the column with --text-column"
        )


def _require_scorable(train: Split, validation: Split, vocabulary: Vocabulary, notes: list[str]) -> None:
    """Says which classes validation lacks; refuses a validation split on which every model scores the same way."""
    if len(set(validation.labels)) < 2:
        only = vocabulary.names[int(validation.labels[0])] if vocabulary.names else validation.labels[0]
        raise TaskError(
            f"all {len(validation)} validation rows have the label {only!r}; expected at least two labels: "
            f"add rows, or take the validation file away to have one carved from train"
        )
    absent = sorted({int(label) for label in train.labels} - {int(label) for label in validation.labels})
    if absent and vocabulary.names:
        shown = ", ".join(vocabulary.names[index] for index in absent[:5]) + (", …" if absent[5:] else "")
        notes.append(f"warning: {len(absent)} of {len(vocabulary.names)} classes absent from validation: {shown}")


def _require_every_label(train: Split, validation: Split) -> None:
    for which, split in (("training", train), ("validation", validation)):
        if len(set(split.labels)) < len(ASPECT_LABELS):
            raise TaskError(f"{len(split)} {which} rows of aspects do not hold all classes; ask for 5 or more")


def _name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-")[:128] or "task"


def split_sha256(split: Split) -> str:
    """Hash of the content of a split, wherever it lies."""
    return _digest((), split)


def _digest(label_names: tuple[str, ...], *splits: Split) -> str:
    digest = hashlib.sha256()
    for part in (label_names, *(_columns(split) for split in splits)):
        digest.update(json.dumps(part, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        digest.update(b"\n")
    return digest.hexdigest()


def _columns(split: Split) -> tuple[object, ...]:
    """What a split holds; images by the hash of their content, wherever they lie."""
    found: tuple[object, ...] = (split.texts, split.pairs, split.labels)
    if split.images is not None:
        return (_image_hashes(split.images), split.labels)
    if split.chats is not None:
        return (split.chats,)
    return found if split.answers is None else (*found, split.answers, split.options)


def _image_hashes(images: tuple[str | bytes, ...]) -> tuple[str, ...]:
    contents = (Path(image).read_bytes() if isinstance(image, str) else image for image in images)
    return tuple(hashlib.sha256(content).hexdigest() for content in contents)
