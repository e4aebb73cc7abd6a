"""Language-modelling rows from tables: a prompt and its answer, the instruction form, or plain text.

Prompt/answer rows are taken as they are, with a line break between the two where neither side brings white space. The
instruction form (``instruction``, ``input``, ``output`` and, in commonsense sets, ``answer``) is laid out under
headings. What the answer is compared with is found by ``options``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autopeft.tasks.columns import TEXTS, differing_column, first_known, missing_column, read_texts
from autopeft.tasks.options import Options, find_options
from autopeft.tasks.tables import Table
from autopeft.tasks.task import Split, TaskSpec

PROMPTS = ("instruction", "prompt", "question", "query", "problem", "input")
CONTEXTS = ("input", "context", "passage")
ANSWERS = ("output", "completion", "response", "answer", "answerkey", "answer_key")
CHOICES = ("answer", "answerkey", "answer_key", "label")
OPTIONS = ("options", "choices", "candidates", "endings")
CLASS_LABELS = ("label", "labels", "label_id")
ASKING = ("question", "query", "problem", "input")
"""Prompts that classification tasks have too: any column of a label speaks for those."""


@dataclass(frozen=True, slots=True)
class PromptColumns:
    """Names of the columns that a language-modelling task uses.

    Attributes:
        answer: What is to be said.
        prompt: What it is said to; None for plain text.
        context: What stands under the prompt.
        options: A list of answers a row.
        choice: Which of the options is right, where ``answer`` says more than that.
    """

    answer: str
    prompt: str | None = None
    context: str | None = None
    options: str | None = None
    choice: str | None = None

    def __str__(self) -> str:
        named = {"prompt": self.prompt, "context": self.context, "answer": self.answer, "options": self.options}
        named["choice"] = self.choice
        return ", ".join(f"{role}={column}" for role, column in named.items() if column)


def looks_like_prompts(spec: TaskSpec, table: Table, labels: Sequence[str]) -> bool:
    """Whether the names of the columns say that answers are to be generated rather than rows classified.

    Args:
        spec: What was asked.
        table: The training rows.
        labels: Names that the label of a classification may have.
    """
    prompt, answer = first_known(PROMPTS, table), first_known(ANSWERS, table)
    if spec.label is not None or prompt is None or prompt == answer:
        return False
    if first_known(OPTIONS, table):
        return first_known(CHOICES, table) is not None
    if answer is None:
        return False
    return first_known(labels if prompt.lower() in ASKING else CLASS_LABELS, table) is None


def find_prompt_columns(spec: TaskSpec, table: Table) -> PromptColumns:
    """The columns of ``table``: as the spec names them, else by name.

    Raises:
        TaskError: If a column is missing or none has a known name; the message lists the columns found.
    """
    for name in (spec.text, spec.text_pair, spec.label):
        if name is not None and name not in table.columns:
            raise missing_column(repr(name), table)
    options = first_known(OPTIONS, table)
    answer = spec.label or (first_known(CHOICES, table) if options else None) or first_known(ANSWERS, table)
    prompt = spec.text or first_known(PROMPTS, table, taken=[answer] if answer else [])
    if answer is None and prompt is None and (text := first_known(TEXTS, table)):
        return PromptColumns(text)
    if answer is None:
        if spec.text is not None:
            return PromptColumns(spec.text)
        raise missing_column("of the answer", table)
    if prompt is None:
        raise missing_column("of the prompt", table)
    taken = [answer, prompt]
    choice = None if options and spec.label is None else first_known(CHOICES, table, taken)
    context = spec.text_pair or first_known(CONTEXTS, table, taken)
    return PromptColumns(answer, prompt, context, options, None if choice == context else choice)


@dataclass(frozen=True, slots=True)
class PromptReading:
    """How tables of one language-modelling task are turned into rows."""

    columns: PromptColumns
    options: Options | None

    @property
    def has_answers(self) -> bool:
        """Whether answers are to be generated, rather than text to be modelled."""
        return self.columns.prompt is not None

    @classmethod
    def of(cls, spec: TaskSpec, train: Table) -> PromptReading:
        """The reading that the training rows call for.

        Raises:
            TaskError: If a column is missing.
        """
        columns = find_prompt_columns(spec, train)
        options = None
        if columns.prompt is not None:
            options = find_options(train, columns.answer, columns.options, columns.choice)
        return cls(columns, options)

    def examples(self, table: Table, held: frozenset[int] | None = None) -> Split:
        """The rows of ``table``.

        Raises:
            TaskError: If a column or a value is missing, or a right answer is none of its options; with rows.
        """
        named = (self.columns.prompt, self.columns.context, self.columns.answer)
        for name in (*named, self.columns.options, self.columns.choice):
            if name is not None and name not in table.columns:
                raise differing_column(name, table)
        prompts = self._prompts(table)
        if self.options is None:
            answers = read_texts(table, self.columns.answer)
            return Split(_parted(prompts, answers), None, (0,) * len(table), answers)
        right, options = self.options.read(table, prompts)
        answers = tuple(texts[index] for texts, index in zip(options, right, strict=True))
        return Split(_parted(prompts, answers), None, right, answers, options)

    def _prompts(self, table: Table) -> tuple[str, ...]:
        if self.columns.prompt is None:
            return ("",) * len(table)
        prompts = read_texts(table, self.columns.prompt)
        contexts = ("",) * len(table)
        if self.columns.context is not None:
            contexts = read_texts(table, self.columns.context, allow_empty=True)
        if self.columns.prompt.lower() == "instruction":
            return tuple(_instruction(*pair) for pair in zip(prompts, contexts, strict=True))
        return tuple("\n".join(filter(None, parts)) for parts in zip(prompts, contexts, strict=True))


def _instruction(instruction: str, given: str) -> str:
    middle = f"### Input:\n{given}\n\n" if given else ""
    return f"### Instruction:\n{instruction}\n\n{middle}### Response:\n"


def _parted(prompts: Sequence[str], answers: Sequence[str]) -> tuple[str, ...]:
    """The prompts, each with a line break after it where neither it nor its answer brings white space."""
    return tuple(
        prompt if not prompt or prompt[-1].isspace() or answer[0].isspace() else f"{prompt}\n"
        for prompt, answer in zip(prompts, answers, strict=True)
    )
