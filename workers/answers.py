"""Language-modelling rows as token ids: a prompt, then its answer, and labels on the tokens of the answer alone.

A conversation is a prompt up to its last assistant turn, and labels are on its other assistant turns too
(``workers.chats``). A row that is too long loses the beginning of its prompt; an answer loses its end only where it
alone is too long, and never all of it. Batches are padded on the right; prompts for generation on the left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from autopeft.adapters.replay import ENTERING
from autopeft.adapters.turns import ChatTemplate
from autopeft.errors import TaskError
from autopeft.tasks import Grader, Split
from workers.batches import Rows
from workers.chats import encode_chats
from workers.packing import packed_batch
from workers.states import KeptStates
from workers.tokens import Column, TokenCache

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
        spans: Beginning and end of each piece of a row that labels are on, one pair after the other; None: the answer.
        lost: Tokens of each row that did not fit; None where nobody counted.
        entering: Hidden states that enter a layer, which a batch then carries; prompts alone do not.
    """

    ids: Sequence[Sequence[int]]
    starts: Sequence[int]
    padding: int
    spans: Sequence[Sequence[int]] | None = field(default=None, kw_only=True)
    lost: Sequence[int] | None = field(default=None, kw_only=True)
    entering: KeptStates | None = field(default=None, kw_only=True)

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

    @property
    def label_counts(self) -> NDArray[np.int64]:
        """Tokens of each row that labels are on."""
        return np.array([sum(end - start for start, end in self.said(row)) for row in range(len(self))], dtype=np.int64)

    def said(self, row: int) -> Iterator[tuple[int, int]]:
        """Beginning and end of each piece of a row that labels are on."""
        if self.spans is None:
            yield self.starts[row], len(self.ids[row])
        else:
            yield from zip(self.spans[row][::2], self.spans[row][1::2], strict=True)

    @property
    def truncation(self) -> dict[str, float] | None:
        """What did not fit, for a measurement's details; None if all did."""
        lost = np.array(self.lost or (0,), dtype=np.int64)
        if not lost.any():
            return None
        share = float(lost.sum() / (lost.sum() + self.lengths.sum()))
        return {"rows": int((lost > 0).sum()), "of": len(self), "tokens": int(lost.sum()), "share": share}

    def batch(self, rows: Rows, device: torch.device) -> tuple[dict[str, Tensor], Tensor]:
        """Inputs of some rows, padded to the longest, and labels [rows, tokens]: ``IGNORED`` but on answers."""
        longest = max(len(self.ids[row]) for row in rows)
        ids = np.full((len(rows), longest), self.padding, dtype=np.int64)
        mask = np.zeros((len(rows), longest), dtype=np.int64)
        labels = np.full((len(rows), longest), IGNORED, dtype=np.int64)
        for index, row in enumerate(rows):
            tokens = self.ids[row]
            ids[index, : len(tokens)] = tokens
            mask[index, : len(tokens)] = 1
            for start, end in self.said(row):
                labels[index, start:end] = tokens[start:end]
        inputs = {"input_ids": torch.from_numpy(ids).to(device), "attention_mask": torch.from_numpy(mask).to(device)}
        if self.entering is not None:
            inputs[ENTERING] = self.entering.batch(rows).to(device)
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
        grader: Grades what is generated, where the metric is none of our own.
        most_new: Most tokens that are generated for a row; None: as many as the longest answer has, within bounds.
        is_packed: Whether a batch holds several rows in one sequence of at most ``max_length`` tokens.
    """

    labels: Tensor
    answers: Sequence[str]
    options: Sequences | None
    option_counts: Sequence[int]
    max_length: int
    end: int | None
    decode: Callable[[Sequence[int]], str]
    grader: Grader | None = field(default=None, kw_only=True)
    most_new: int | None = field(default=None, kw_only=True)
    is_packed: bool = field(default=False, kw_only=True)

    def batch(self, rows: Rows, device: torch.device) -> tuple[dict[str, Tensor], Tensor]:
        """Inputs of some rows and labels, shape [rows or sequences, tokens]."""
        if not self.is_packed:
            return Sequences.batch(self, rows, device)
        return packed_batch(self.ids, rows, self.said, self.max_length, self.padding, IGNORED, device)

    def take(self, rows: Rows) -> AnswerRows:
        """Some rows as a split of their own."""
        firsts = np.concatenate([[0], np.cumsum(self.option_counts)]).astype(np.int64)
        options = None
        if self.options is not None:
            wanted = [index for row in rows for index in range(firsts[row], firsts[row + 1])]
            kept = self.options.entering and self.options.entering.take(np.array(wanted, dtype=np.int64))
            ids, starts = _of(self.options.ids, wanted), _of(self.options.starts, wanted)
            options = Sequences(ids, starts, self.padding, entering=kept)
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
            grader=self.grader,
            most_new=self.most_new,
            is_packed=self.is_packed,
            spans=self.spans and _of(self.spans, rows),
            lost=self.lost and _of(self.lost, rows),
            entering=self.entering and self.entering.take(np.asarray(rows)),
        )


def encode_answers(
    tokenizer: PreTrainedTokenizerBase,
    split: Split,
    max_length: int,
    cache: TokenCache | None = None,
    template: ChatTemplate | None = None,
) -> AnswerRows:
    """The rows of ``split`` as token ids, cut to ``max_length`` tokens; from ``cache`` if they are there.

    An answer to a prompt ends with the tokenizer's end token; a piece of plain text does not, and a conversation with
    what its template sets there. ``template`` is that of conversations; None: the tokenizer's own.

    Raises:
        TaskError: If an answer has no token, rows may have one token only, or the template refuses a conversation.
    """
    if split.answers is None:
        raise TaskError("rows without answers; expected those of a language-modelling task")
    if max_length < 2:
        raise TaskError(f"max length {max_length}; expected at least 2 tokens: one to read and one to say")
    if split.chats is not None:
        return _encode_conversations(template or ChatTemplate(tokenizer), split, max_length, cache)
    padding = tokenizer.pad_token_id or 0
    end = tokenizer.eos_token_id if any(split.texts) else None
    ids, starts, lost = _kept_pairs(tokenizer, split.texts, split.answers, max_length, end, cache)
    options = None
    if split.options is not None:
        prompts = [prompt for prompt, texts in zip(split.texts, split.options, strict=True) for _ in texts]
        said = [text for texts in split.options for text in texts]
        option_ids, firsts, _ = _kept_pairs(tokenizer, prompts, said, max_length, end, cache)
        options = Sequences(option_ids, firsts, padding)
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
        decode=_decoder(tokenizer),
        lost=lost,
    )


def _encode_conversations(
    template: ChatTemplate, split: Split, max_length: int, cache: TokenCache | None
) -> AnswerRows:
    tokenizer, chats = template.tokenizer, split.chats or ()

    def tokenise() -> tuple[Column, Column]:
        rows = encode_chats(tokenizer, template.lay_out(chats, split.numbers), max_length)
        return [row.ids for row in rows], [[row.lost, *chain.from_iterable(row.spans)] for row in rows]

    options = {"kind": "chats", "max_length": max_length, "template": template.text}
    ids, beside = cache.columns(tokenizer, (chats,), options, tokenise) if cache else tokenise()
    spans = [list(row[1:]) for row in beside or ()]
    starts, decode = [row[-2] for row in spans], _decoder(tokenizer)
    return AnswerRows(
        ids=ids,
        starts=starts,
        padding=tokenizer.pad_token_id or 0,
        labels=torch.tensor(split.labels, dtype=torch.int64),
        answers=[decode(row[start:]) for row, start in zip(ids, starts, strict=True)],
        options=None,
        option_counts=(),
        max_length=max_length,
        end=_end_of_turn(tokenizer, ids),
        decode=decode,
        spans=spans,
        lost=[row[0] for row in beside or ()],
    )


def _end_of_turn(tokenizer: PreTrainedTokenizerBase, ids: Sequence[Sequence[int]]) -> int | None:
    """The token that most conversations end with, if it is one of the tokenizer's own making; else its end token."""
    added = set(tokenizer.get_added_vocab().values())
    last = Counter(row[-1] for row in ids if row[-1] in added).most_common(1)
    return last[0][0] if last else tokenizer.eos_token_id


def _decoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[Sequence[int]], str]:
    return lambda tokens: str(tokenizer.decode(tokens, skip_special_tokens=True))


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


def _kept_pairs(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    answers: Sequence[str],
    max_length: int,
    end: int | None,
    cache: TokenCache | None,
) -> tuple[Sequence[Sequence[int]], list[int], list[int]]:
    """What ``_encode_pairs`` makes, from ``cache`` if it is there."""

    def tokenise() -> tuple[Column, Column]:
        ids, starts, lost = _encode_pairs(tokenizer, prompts, answers, max_length, end)
        return ids, list(zip(starts, lost, strict=True))

    options = {"kind": "answers", "max_length": max_length, "end": end}
    ids, beside = cache.columns(tokenizer, (prompts, answers), options, tokenise) if cache else tokenise()
    return ids, [row[0] for row in beside or ()], [row[1] for row in beside or ()]


def _encode_pairs(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    answers: Sequence[str],
    max_length: int,
    end: int | None,
) -> tuple[list[list[int]], list[int], list[int]]:
    """Token ids of each row, where its answer begins, and how many of its tokens did not fit."""
    lead = _lead(tokenizer)
    ids, starts, lost = [], [], []
    for row, (prompt, answer) in enumerate(zip(_tokens(tokenizer, prompts), _tokens(tokenizer, answers), strict=True)):
        if not answer:
            raise TaskError(f"row {row + 1}: the tokenizer makes no token of the answer {answers[row]!r:.100}")
        begin = lead if lead or prompt else _first(tokenizer)
        tokens, start = join(begin, prompt, answer, max_length, end)
        ids.append(tokens)
        starts.append(start)
        lost.append(len(begin) + len(prompt) + len(answer) + (end is not None) - len(tokens))
    return ids, starts, lost


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
