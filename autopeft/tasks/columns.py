"""Which columns of a table hold the text, the second text and the label: named by the user, declared, or by name.

Does not look at values beyond checking that texts are there; labels are read by ``labels``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from autopeft.errors import TaskError
from autopeft.tasks.tables import Table
from autopeft.tasks.task import TaskSpec

PAIRS: tuple[tuple[str, str], ...] = (
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "passage"),
    ("question", "sentence"),
    ("question", "context"),
    ("question", "answer"),
    ("query", "passage"),
    ("query", "document"),
    ("text1", "text2"),
    ("text_a", "text_b"),
)
TEXTS = (
    *("text", "sentence", "content", "review", "utterance", "question", "query", "comment", "tweet"),
    *("document", "passage", "body", "message", "title"),
)
LABELS = (
    *("label", "labels", "label_id", "intent", "target", "category", "class", "sentiment", "topic", "relation"),
    *("score", "rating", "y"),
)
SHOWN_ROWS = 5


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns that a task uses; ``text_pair`` is None where it has single texts."""

    text: str
    text_pair: str | None
    label: str

    def __str__(self) -> str:
        pair = f", text_pair={self.text_pair}" if self.text_pair else ""
        return f"text={self.text}{pair}, label={self.label}"


def find_columns(spec: TaskSpec, declared: Mapping[str, str], table: Table) -> Columns:
    """The columns of ``table``: as the spec names them, else as declared, else by name.

    Raises:
        TaskError: If a column is missing or none has a known name; the message lists the columns found.
    """
    text, pair = spec.text or declared.get("text"), spec.text_pair or declared.get("text_pair")
    label = spec.label or declared.get("label") or first_known(LABELS, table)
    names = [name for name in (text, pair, label) if name is not None]
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise missing_column(" and ".join(map(repr, missing)), table)
    if text is None:
        text, found = _find_texts(table, taken=names)
        pair = pair or found
    elif pair is None and not declared:
        pair = _partner(text, table, taken=names)
    if text is None or label is None:
        raise missing_column("of the text" if text is None else "of the label", table)
    if len({text, pair, label}) < 3:
        raise TaskError(
            f"{Columns(text, pair, label)} names one column twice; expected a column for each: name another"
        )
    return Columns(text, pair, label)


def require_columns(columns: Columns, table: Table) -> None:
    """Checks that another split has the same columns.

    Raises:
        TaskError: If one is missing.
    """
    for name in (columns.text, columns.text_pair, columns.label):
        if name is not None and name not in table.columns:
            raise differing_column(name, table)


def read_texts(table: Table, column: str, allow_empty: bool = False) -> tuple[str, ...]:
    """The texts of a column; numbers become text, as CSV has no quotes around them.

    Raises:
        TaskError: If a row has no text; the message gives row numbers.
    """
    values = table.columns[column]
    bad = [row for row, value in enumerate(values, 1) if not _is_text(value, allow_empty)]
    if bad:
        raise TaskError(
            f"{rows_named(bad)} of {table.origin}: {column} is {values[bad[0] - 1]!r}; "
            f"expected a text in every row: fill or remove the rows"
        )
    return tuple(str(value) for value in values)


def rows_named(rows: Sequence[int]) -> str:
    """Row numbers (from 1) for a message: the first few, and how many in all."""
    shown = ", ".join(f"{row:,}" for row in rows[:SHOWN_ROWS])
    more = f" and {len(rows) - SHOWN_ROWS:,} more" if len(rows) > SHOWN_ROWS else ""
    return f"row{'s' if len(rows) > 1 else ''} {shown}{more}"


def _is_text(value: object, allow_empty: bool) -> bool:
    if isinstance(value, str):
        return allow_empty or bool(value.strip())
    return isinstance(value, int | float) and value == value


def _find_texts(table: Table, taken: Collection[str]) -> tuple[str | None, str | None]:
    for first, second in PAIRS:
        left, right = _named(first, table, taken), _named(second, table, taken)
        if left and right:
            return left, right
    return first_known(TEXTS, table, taken), None


def _partner(text: str, table: Table, taken: Collection[str]) -> str | None:
    seconds = [second for first, second in PAIRS if first == text.lower()]
    return first_known(seconds, table, taken)


def first_known(names: Sequence[str], table: Table, taken: Collection[str] = ()) -> str | None:
    """The column that has the first of ``names`` that any column has, in any case, unless it is taken."""
    return next((found for name in names if (found := _named(name, table, taken))), None)


def _named(name: str, table: Table, taken: Collection[str] = ()) -> str | None:
    """The column called ``name`` in any case, unless it is taken."""
    return next((column for column in table.columns if column.lower() == name and column not in taken), None)


def missing_column(which: str, table: Table) -> TaskError:
    """The error that says what columns there are instead of ``which``."""
    return TaskError(f"{_lacking(which, table)}. Name them with --text-column, --text-pair-column and --label-column")


def differing_column(name: str, table: Table) -> TaskError:
    """The error of a split that lacks the column ``name``, which the training rows are read from."""
    return TaskError(f"{_lacking(repr(name), table)}. The training rows have it: name the column so here too")


def _lacking(which: str, table: Table) -> str:
    return f"{table.origin} has no column {which}; its columns are: {', '.join(table.columns) or 'none'}"
