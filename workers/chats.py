"""Conversations as token ids, with labels on what the assistant says, its end-of-turn tokens included.

A token that lies across the beginning of a turn belongs to the turn. A row that is too long loses its beginning, after
the token that begins every row; of its last turn it loses the end only where that turn alone is too long.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from autopeft.adapters.turns import Span, Turns
from autopeft.errors import TaskError


@dataclass(frozen=True, slots=True)
class ChatRow:
    """One conversation as token ids.

    Attributes:
        ids: At most so many as were allowed.
        spans: Beginning and end of what the assistant says, in tokens.
        lost: Tokens that did not fit.
    """

    ids: list[int]
    spans: list[Span]
    lost: int


def encode_chats(tokenizer: PreTrainedTokenizerBase, laid_out: Sequence[Turns], max_length: int) -> list[ChatRow]:
    """Conversations as token ids, cut to ``max_length`` tokens.

    Raises:
        TaskError: If the tokenizer does not say where in a text its tokens lie.
    """
    if not tokenizer.is_fast:
        raise TaskError(
            f"{type(tokenizer).__name__} does not say where its tokens lie in a text; expected a fast tokenizer "
            "(tokenizer.json) for conversations: save it as one"
        )
    encoded = tokenizer(
        [turns.text for turns in laid_out],
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    rows = []
    for ids, offsets, turns in zip(encoded["input_ids"], encoded["offset_mapping"], laid_out, strict=True):
        spans = _in_tokens(turns.spans, offsets)
        rows.append(cut(list(ids[: spans[-1][1]]), spans, int(ids[0] == tokenizer.bos_token_id), max_length))
    return rows


def cut(ids: list[int], spans: Sequence[Span], lead: int, max_length: int) -> ChatRow:
    """A row of at most ``max_length`` tokens: its first ``lead`` ones, and as much of the end as fits.

    Args:
        ids: All tokens.
        spans: What the assistant says; the last one stays, but for its end where it alone is too long.
        lead: Tokens at the beginning that every row has.
        max_length: At least 2.
    """
    if len(ids) <= max_length:
        return ChatRow(ids, list(spans), 0)
    kept_lead = min(lead, max_length - 1)
    start = spans[-1][0]
    room = max_length - max(1, kept_lead)
    end = min(len(ids), start + room)
    gone = end - max_length  # of the beginning, behind the lead
    kept = [*ids[:kept_lead], *ids[gone + kept_lead : end]]
    moved = [(max(first - gone, kept_lead, 1), min(last, end) - gone) for first, last in spans]
    return ChatRow(kept, [(first, last) for first, last in moved if first < last], len(ids) - len(kept))


def _in_tokens(spans: Sequence[Span], offsets: Sequence[Span]) -> list[Span]:
    """``spans`` of characters as spans of tokens; the first token of a row can be predicted by none."""
    starts = [start for start, _ in offsets]
    ends = [end for _, end in offsets]
    found = []
    for start, end in spans:
        first = next((token for token in range(bisect_left(ends, start), len(ends)) if ends[token] > start), len(ends))
        found.append((max(1, first), bisect_left(starts, end)))
    return [(first, last) for first, last in found if first < last]
