"""From the labels as written to class indices or numbers, with one vocabulary for all splits.

Strings are classes in sorted order, whole numbers are class indices, numbers with a fraction are regression; declared
names overrule. A class must be in train; that one is absent from validation is said by ``loading``, not refused here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from autopeft.errors import TaskError
from autopeft.tasks.columns import rows_named
from autopeft.tasks.tables import Table


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """How labels are read: ``names`` of the classes in order of their index; no names means regression.

    ``by_name`` says whether the labels are written as names rather than as indices.
    """

    names: tuple[str, ...]
    by_name: bool = False

    @property
    def is_regression(self) -> bool:
        """Whether labels are numbers rather than classes."""
        return not self.names


def find_vocabulary(table: Table, column: str, declared: Sequence[str], regression: bool | None) -> Vocabulary:
    """The vocabulary that the training rows call for.

    Args:
        table: The training rows.
        column: Column of the label.
        declared: Names of the classes, where the source declares them.
        regression: What the metric asks for; None leaves it to the labels.

    Raises:
        TaskError: If a label is missing, kinds are mixed, or the metric and the labels do not fit.
    """
    values = _present(table, column)
    numeric = all(_is_number(value) for value in values)
    fractional = numeric and any(not float(cast(float, value)).is_integer() for value in values)
    if regression is False and fractional and not declared:
        raise TaskError(
            f"{table.origin}: {column} holds numbers with a fraction, and the metric needs classes; "
            f"expected whole numbers or names: choose pearson or spearman, or another label column"
        )
    if regression or (regression is None and fractional and not declared):
        if not numeric:
            raise TaskError(
                f"{table.origin}: {column} holds {_first(values, numbers=False)!r}, and the metric needs numbers; "
                f"expected a number in every row: choose accuracy or macro_f1"
            )
        return Vocabulary(())
    names = tuple(declared) or table.class_names.get(column, ())
    return Vocabulary(names, by_name=not numeric) if names else _found(values, numeric, table, column)


def read_labels(
    table: Table, column: str, vocabulary: Vocabulary, train_classes: frozenset[int] | None = None
) -> tuple[int, ...] | tuple[float, ...]:
    """The labels of a table as class indices, or as numbers for regression.

    Args:
        table: The rows.
        column: Column of the label.
        vocabulary: How to read them.
        train_classes: Classes that train holds, for a split that is scored; None for train itself.

    Raises:
        TaskError: If a label is missing, not of the vocabulary, or of a class that train does not hold; with rows.
    """
    values = _present(table, column)
    if vocabulary.is_regression:
        bad = [row for row, value in enumerate(values, 1) if not _is_number(value)]
        _refuse(bad, values, table, column, "a finite number")
        return tuple(float(cast(float, value)) for value in values)
    indices = [_index(value, vocabulary) for value in values]
    bad = [row for row, index in enumerate(indices, 1) if index is None]
    _refuse(bad, values, table, column, _expected(vocabulary))
    found = tuple(index for index in indices if index is not None)
    if train_classes is not None:
        unseen = [row for row, index in enumerate(found, 1) if index not in train_classes]
        _refuse(unseen, values, table, column, "a class that the training rows hold")
    return found


def require_every_class(labels: Sequence[float], vocabulary: Vocabulary, origin: str) -> None:
    """Checks that the training rows hold each class, and at least two.

    Raises:
        TaskError: If a class has no training row.
    """
    if vocabulary.is_regression:
        if len(set(labels)) < 2:
            raise TaskError(
                f"all labels of {origin} are {labels[0]}; expected different numbers: check the label column"
            )
        return
    if len(vocabulary.names) < 2:
        raise TaskError(
            f"{origin} holds the one class {vocabulary.names[0]!r}; expected at least two: check the label column"
        )
    held = set(labels)
    absent = [name for index, name in enumerate(vocabulary.names) if index not in held]
    if absent:
        shown = ", ".join(repr(name) for name in absent[:5]) + (f" and {len(absent) - 5} more" if absent[5:] else "")
        raise TaskError(
            f"{origin} has no row of {shown}; expected every class of {len(vocabulary.names)} in train: "
            f"add rows, number the labels from 0 without gaps, or take the class out of the label names"
        )


def _present(table: Table, column: str) -> Sequence[object]:
    values = table.columns[column]
    bad = [row for row, value in enumerate(values, 1) if value is None or value == "" or value != value]
    _refuse(bad, values, table, column, "a label in every row")
    return values


def _found(values: Sequence[object], numeric: bool, table: Table, column: str) -> Vocabulary:
    if numeric:
        numbers = [int(cast(float, value)) for value in values]
        bad = [row for row, number in enumerate(numbers, 1) if not 0 <= number < len(numbers)]
        _refuse(bad, values, table, column, "whole numbers from 0 to the number of classes less one")
        return Vocabulary(tuple(str(index) for index in range(max(numbers) + 1)))
    kinds = sorted({type(value).__name__ for value in values})
    if len(kinds) > 1 or kinds[0] not in ("str", "bool"):
        raise TaskError(
            f"{table.origin}: {column} holds values of type {', '.join(kinds)}; "
            f"expected names, or numbers, in all rows: write them one way"
        )
    return Vocabulary(tuple(sorted({str(value) for value in values})), by_name=True)


def _index(value: object, vocabulary: Vocabulary) -> int | None:
    """Class index of a label as written; None if it is none of the vocabulary."""
    if vocabulary.by_name:
        name = str(value)
        return vocabulary.names.index(name) if name in vocabulary.names else None
    if not _is_number(value) or not float(cast(float, value)).is_integer():
        return None
    index = int(cast(float, value))
    return index if 0 <= index < len(vocabulary.names) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _first(values: Sequence[object], numbers: bool) -> object:
    return next(value for value in values if _is_number(value) == numbers)


def _expected(vocabulary: Vocabulary) -> str:
    if not vocabulary.by_name:
        return f"a whole number from 0 to {len(vocabulary.names) - 1}"
    shown = ", ".join(vocabulary.names[:8]) + (", …" if vocabulary.names[8:] else "")
    return f"one of {shown}"


def _refuse(bad: Sequence[int], values: Sequence[object], table: Table, column: str, expected: str) -> None:
    if bad:
        raise TaskError(
            f"{rows_named(bad)} of {table.origin}: {column} is {values[bad[0] - 1]!r}; expected {expected}: "
            f"correct or remove the rows"
        )
