"""A split as it was read, before its columns have a meaning; and the quiet, local way to read one with ``datasets``.

Reads what it is told to read and nothing beside it; ``columns`` and ``labels`` turn a table into examples.
"""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autopeft.errors import TaskError
from autopeft.tasks.kinds import TaskKind

FORMATS: Mapping[str, str] = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
SPLIT_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}


@dataclass(frozen=True, slots=True)
class Table:
    """Named columns of plain Python values, of equal length.

    Attributes:
        origin: Where it came from, for messages.
        columns: Values by column name, in the order of the source.
        class_names: Names of the classes of a column that declares them.
    """

    origin: str
    columns: Mapping[str, Sequence[object]]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return max((len(column) for column in self.columns.values()), default=0)


@dataclass(frozen=True, slots=True)
class Source:
    """Where the splits of a task come from; ``test`` is a function, so that test rows stay unread until asked for.

    Attributes:
        name: Name of the task.
        train: The training rows.
        validation: The validation rows; None where the source has none.
        test: Reads the test rows; None where the source has none.
        label_names: Declared names of the classes, in order; empty where none are declared.
        metrics: Declared metrics, the first being the task's own.
        columns: Declared columns by role (text, text_pair, label); empty where they are found by name.
        kind: What its rows are for, where that is declared or plain from the files.
        folder: Where the paths of its images start.
    """

    name: str
    train: Table
    validation: Table | None
    test: Callable[[], Table] | None
    label_names: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    kind: TaskKind | None = None
    folder: Path | None = None


def read_table(path: Path) -> Table:
    """The rows of one file of ``FORMATS``; nothing is written beside it.

    Raises:
        TaskError: If the file is empty or cannot be read as what its name says.
    """
    if path.stat().st_size == 0:
        raise TaskError(f"{path} is empty; expected rows with a text and a label: check how the file was written")
    try:
        table = _read(path)
    except Exception as error:
        cause = _cause(error)
        wanted = "rows with the same columns throughout: check the file"
        if isinstance(cause, UnicodeDecodeError):
            wanted = "text in UTF-8: save the file as that"
        raise TaskError(
            f"{path} cannot be read as {path.suffix.lower().lstrip('.')}: {_first_line(cause)}; expected {wanted}"
        ) from error
    if not len(table):
        raise TaskError(f"{path} holds no rows; expected rows with a text and a label: check how the file was written")
    return table


def _read(path: Path) -> Table:
    kind, files = FORMATS[path.suffix.lower()], {"train": str(path)}
    with quiet_datasets() as datasets, tempfile.TemporaryDirectory(prefix="autopeft-") as cache:
        try:
            splits = datasets.load_dataset(kind, data_files=files, cache_dir=cache, **_options(path))
        except ValueError as error:
            if "corresponds to no data" in str(error):  # how the library says that it found no rows
                return Table(path.name, {})
            raise
        return table_of(splits["train"], path.name)


def table_of(rows: Any, origin: str) -> Table:
    """The table of a ``datasets.Dataset``; images stay as they are stored, as a mapping of ``path`` and ``bytes``."""
    for name, feature in rows.features.items():
        if type(feature).__name__ == "Image":
            rows = rows.cast_column(name, type(feature)(decode=False))
    names = {
        name: tuple(str(label) for label in feature.names)
        for name, feature in rows.features.items()
        if hasattr(feature, "names")
    }
    return Table(origin, rows.to_dict(), names)


@contextlib.contextmanager
def quiet_datasets() -> Iterator[Any]:
    """The ``datasets`` library, imported now, without its progress bars and log lines while the context lasts."""
    import datasets

    had_bars = not datasets.are_progress_bars_disabled()
    log = logging.getLogger("datasets")
    level = log.level
    datasets.disable_progress_bars()
    log.setLevel(logging.CRITICAL)
    try:
        yield datasets
    finally:
        log.setLevel(level)
        if had_bars:
            datasets.enable_progress_bars()


def _options(path: Path) -> dict[str, object]:
    """What the reader of a format needs to be told: an empty cell is empty, and ``NA`` is a word."""
    suffix = path.suffix.lower()
    if suffix == ".tsv":
        return {"sep": "\t", "keep_default_na": False}
    return {"keep_default_na": False} if suffix == ".csv" else {}


def _cause(error: BaseException) -> BaseException:
    """The innermost reason."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def read_json(path: Path) -> dict[str, object]:
    """The object in a JSON file.

    Raises:
        TaskError: If the file holds anything else.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TaskError(f"{path} cannot be read as JSON: {error}; correct or remove it") from error
    if not isinstance(document, dict):
        raise TaskError(f"{path} holds a {type(document).__name__}; expected a JSON object: correct or remove it")
    return document
