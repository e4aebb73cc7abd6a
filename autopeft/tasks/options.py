"""What the answer of a row is compared with: a list in the row, or the few answers that the training rows know.

In a row's own list the right one is named by its text, its index from 0, its letter, or its label. Without lists, the
answers that training rows hold are the options where they are few; a prompt that ends a task like "answer format:
answer1/answer2/answer3" narrows them down to those.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from autopeft.errors import TaskError
from autopeft.tasks.columns import rows_named
from autopeft.tasks.tables import Table

MOST_KNOWN = 30
"""More distinct answers than this are no set of options."""

ROWS_AN_OPTION = 4
"""Training rows that an answer of a set has at least, on average."""

_RUN = re.compile(r"\S+(?:/\S+)+")
_EDGES = ".,;:!?()[]\"'"


@dataclass(frozen=True, slots=True)
class Options:
    """How the options of a row and the right one are read.

    Attributes:
        answer: Column of what is said.
        listed: Column of the row's own list; None for a known set.
        choice: Column that names the right one.
        known: The set of answers, in the order of the alphabet; empty for lists.
    """

    answer: str
    listed: str | None
    choice: str
    known: tuple[str, ...] = ()

    def read(self, table: Table, prompts: Sequence[str]) -> tuple[tuple[int, ...], tuple[tuple[str, ...], ...]]:
        """Index of the right option, and the options, of each row.

        Raises:
            TaskError: If a right answer is none of its options; the message gives row numbers.
        """
        if self.listed is not None:
            return self._read_lists(table)
        right, options, bad = [], [], []
        said = [str(value) for value in table.columns[self.answer]]
        for row, (value, prompt) in enumerate(zip(table.columns[self.choice], prompts, strict=True)):
            choice = str(value)
            if choice not in self.known or choice not in said[row]:
                bad.append(row + 1)
                continue
            names = options_named(prompt, self.known, choice) or self.known
            before, _, after = said[row].rpartition(choice)
            right.append(names.index(choice))
            options.append(tuple(f"{before}{name}{after}" for name in names))
        _refuse(bad, table, self.choice, f"one of {', '.join(self.known)}, as the training rows hold")
        return tuple(right), tuple(options)

    def _read_lists(self, table: Table) -> tuple[tuple[int, ...], tuple[tuple[str, ...], ...]]:
        right, options, bad = [], [], []
        for row, (listed, value) in enumerate(
            zip(table.columns[str(self.listed)], table.columns[self.choice], strict=True), 1
        ):
            texts, labels = _list_of(listed)
            index = _index_of(value, texts, labels)
            if index is None:
                bad.append(row)
                continue
            right.append(index)
            options.append(texts)
        expected = f"a list of two or more texts in {self.listed}, and the text, index or letter of one of them"
        _refuse(bad, table, self.choice, expected)
        return tuple(right), tuple(options)


def find_options(train: Table, answer: str, listed: str | None, choice: str | None) -> Options | None:
    """How options are read; None where the answers are free text.

    Args:
        train: The training rows.
        answer: Column of what is said.
        listed: Column of lists of options, if there is one.
        choice: Column that names the right one, where another than ``answer`` does.
    """
    naming = choice or answer
    if listed is not None:
        return Options(answer, listed, naming)
    values = [str(value) for value in train.columns[naming]]
    said = [str(value) for value in train.columns[answer]]
    known = Counter(values)
    few = 2 <= len(known) <= min(MOST_KNOWN, len(values) // ROWS_AN_OPTION)
    if few and all(value and value in whole for value, whole in zip(values, said, strict=True)):
        return Options(answer, None, naming, tuple(sorted(known)))
    return None


def options_named(prompt: str, known: Collection[str], right: str) -> tuple[str, ...]:
    """The last ``a/b/c`` in the prompt that holds known answers only, the right one among them; empty without one."""
    for run in reversed(_RUN.findall(prompt)):
        names = tuple(name.strip(_EDGES) for name in run.split("/"))
        if set(names) <= set(known) and right in names and len(set(names)) == len(names):
            return names
    return ()


def _list_of(value: object) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The texts of a list of options, and their labels where it has some; empty if it is none."""
    labels: object = ()
    if isinstance(value, Mapping):
        labels = value.get("label", ())
        value = value.get("text")
    if not isinstance(value, list) or not all(isinstance(text, str) and text.strip() for text in value):
        return (), ()
    return tuple(value), tuple(str(label) for label in labels) if isinstance(labels, list) else ()


def _index_of(value: object, texts: tuple[str, ...], labels: tuple[str, ...]) -> int | None:
    if len(texts) < 2 or len(set(texts)) < len(texts):
        return None
    if isinstance(value, str) and value in (*texts, *labels):
        return texts.index(value) if value in texts else labels.index(value)
    text = str(value).strip()
    letter = "ABCDEFGHIJKLMNOPQRSTUVWXYZ".find(text.upper()) if len(text) == 1 else -1
    index = int(text) if text.isdecimal() else letter
    return index if 0 <= index < len(texts) else None


def _refuse(bad: Sequence[int], table: Table, column: str, expected: str) -> None:
    if bad:
        got = table.columns[column][bad[0] - 1]
        raise TaskError(
            f"{rows_named(bad)} of {table.origin}: {column} is {got!r}; expected {expected}: correct or remove the rows"
        )
