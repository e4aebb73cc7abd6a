"""Language-modelling rows as token ids: a prompt, then its answer, and labels on the tokens of the answer alone.

A row that is too long loses the beginning of its prompt; an answer loses its end only where it alone is too long, and
never all of it. Batches are padded on the right; prompts for generation on the left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from autopeft.errors import TaskError
from autopeft.tasks import Split
from workers.batches import Rows

T = TypeVar("T")

IGNORED = -100
"""Label of a token on which there is no loss."""


@dataclass(frozen=True, slots=True)
class Sequences:
    """Prompts with answers.

    Attributes:
        ids: Token ids of each row.
        starts: Where in each row the answer begins; at least 1, so that every token of it is predicted.
        padding: Token id that fills a batch.
    """

    ids: Sequence[Sequence[int]]
    starts: Sequence[int]
    padding: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row."""
        return np.array([len(row) for row in self.ids], dtype=np.int64)

    @property
    def answer_lengths(self) -> NDArray[np.int64]:
        """Tokens of each answer."""
        return self.lengths - np.array(self.starts, dtype=np.int64)

    def batch(self, rows: Rows, device: torch.device) -> tuple[dict[str, Tensor], Tensor]:
        """Inputs of some rows, padded to the longest, and labels [rows, tokens]: ``IGNORED`` but on answers."""
        longest = max(len(self.ids[row]) for row in rows)
        ids = np.full((len(rows), longest), self.padding, dtype=np.int64)
        mask = np.zeros((len(rows), longest), dtype=np.int64)
        labels = np.full((len(rows), longest), IGNORED, dtype=np.int64)
        for index, row in enumerate(rows):
            tokens, start = self.ids[row], self.starts[row]
            ids[index, : len(tokens)] = tokens
            mask[index, : len(tokens)] = 1
            labels[index, start : len(tokens)] = tokens[start:]
        inputs = {"input_ids": torch.from_numpy(ids).to(device), "attention_mask": torch.from_numpy(mask).to(device)}
        return inputs, torch.from_numpy(labels).to(device)

    def prompts(self, rows: Rows, most: int, device: torch.device) -> dict[str, Tensor]:
        """The prompts of some rows alone, at most the last ``most`` tokens, padded on the left."""
        tokens = [list(self.ids[row][: self.starts[row]])[-most:] for row in rows]
        longest = max(map(len, tokens))
        ids = torch.tensor([[self.padding] * (longest - len(prompt)) + prompt for prompt in tokens])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in tokens])
        return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


@dataclass(frozen=True, slots=True)
class AnswerRows(Sequences):
    """A split of a language-modelling task as token ids.

    Attributes:
        labels: Index of the right option of each row; 0 without options.
        answers: The answers as texts.
        options: All options of all rows one after the other; None without options.
        option_counts: How many of them each row has.
        max_length: Most tokens of a row.
        end: Token id that ends an answer, or None.
        decode: From token ids to text.
    """

    labels: Tensor
    answers: Sequence[str]
    options: Sequences | None
    option_counts: Sequence[int]
    max_length: int
    end: int | None
    decode: Callable[[Sequence[int]], str]

    def take(self, rows: Rows) -> AnswerRows:
        """Some rows as a split of their own."""
        firsts = np.concatenate([[0], np.cumsum(self.option_counts)]).astype(np.int64)
        options = None
        if self.options is not None:
            wanted = [index for row in rows for index in range(firsts[row], firsts[row + 1])]
            options = Sequences(_of(self.options.ids, wanted), _of(self.options.starts, wanted), self.padding)
        return AnswerRows(
            ids=_of(self.ids, rows),
            starts=_of(self.starts, rows),
            padding=self.padding,
            labels=self.labels[torch.from_numpy(rows)],
            answers=_of(self.answers, rows),
            options=options,
            option_counts=_of(self.option_counts, rows) if self.option_counts else (),
            max_length=self.max_length,
            end=self.end,
            decode=self.decode,
        )


def encode_answers(tokenizer: PreTrainedTokenizerBase, split: Split, max_length: int) -> AnswerRows:
    """The rows of ``split`` as token ids, cut to ``max_length`` tokens.

    An answer to a prompt ends with the tokenizer's end token; a piece of plain text does not.

    Raises:
        TaskError: If an answer has no token, or rows may have one token only.
    """
    if split.answers is None:
        raise TaskError("rows without answers; expected those of a language-modelling task")
    if max_length < 2:
        raise TaskError(f"max length {max_length}; expected at least 2 tokens: one to read and one to say")
    padding = tokenizer.pad_token_id or 0
    end = tokenizer.eos_token_id if any(split.texts) else None
    ids, starts = _encode_pairs(tokenizer, split.texts, split.answers, max_length, end)
    options = None
    if split.options is not None:
        prompts = [prompt for prompt, texts in zip(split.texts, split.options, strict=True) for _ in texts]
        said = [text for texts in split.options for text in texts]
        options = Sequences(*_encode_pairs(tokenizer, prompts, said, max_length, end), padding)
    return AnswerRows(
        ids=ids,
        starts=starts,
        padding=padding,
        labels=torch.tensor(split.labels, dtype=torch.int64),
        answers=split.answers,
        options=options,
        option_counts=tuple(map(len, split.options or ())),
        max_length=max_length,
        end=end,
        decode=lambda tokens: str(tokenizer.decode(tokens, skip_special_tokens=True)),
    )


def join(
    lead: Sequence[int], prompt: Sequence[int], answer: Sequence[int], max_length: int, end: int | None
) -> tuple[list[int], int]:
    """Token ids of a row of at most ``max_length`` tokens, and where its answer begins.

    Args:
        lead: Tokens that begin every row.
        prompt: Tokens of the prompt; it loses its beginning first.
        answer: Tokens of the answer, at least one.
        max_length: At least 2.
        end: Token that ends the answer where there is room, or None.
    """
    kept_lead = list(lead)[: max_length - 1]
    before = max(1, len(kept_lead))
    said = [*answer, *([] if end is None else [end])][: max_length - before]
    room = max_length - len(kept_lead) - len(said)
    kept_prompt = list(prompt)[-room:] if room else []
    return [*kept_lead, *kept_prompt, *said], len(kept_lead) + len(kept_prompt)


def _encode_pairs(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    answers: Sequence[str],
    max_length: int,
    end: int | None,
) -> tuple[list[list[int]], list[int]]:
    lead = _lead(tokenizer)
    ids, starts = [], []
    for row, (prompt, answer) in enumerate(zip(_tokens(tokenizer, prompts), _tokens(tokenizer, answers), strict=True)):
        if not answer:
            raise TaskError(f"row {row + 1}: the tokenizer makes no token of the answer {answers[row]!r:.100}")
        tokens, start = join(lead if lead or prompt else _first(tokenizer), prompt, answer, max_length, end)
        ids.append(tokens)
        starts.append(start)
    return ids, starts


def _tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    encoded = tokenizer(
        list(texts), add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )
    return list(encoded["input_ids"])


def _lead(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The token that this tokenizer sets before every text, if it does."""
    begin = tokenizer.bos_token_id
    return [begin] if begin is not None and tokenizer("a")["input_ids"][:1] == [begin] else []


def _first(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """A token for plain text to begin with, so that its first own token is predicted too."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
        if token is not None:
            return [token]
    return [0]


def _of(values: Sequence[T], rows: Rows | Sequence[int]) -> list[T]:
    return [values[row] for row in rows]
