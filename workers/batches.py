"""Rows as token ids, the order in which training sees them, and batches padded to their own longest row.

The order depends on the study's seed, the replicate and the rows' lengths alone. Rows are tokenised once and kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from autopeft.adapters.replay import ENTERING
from autopeft.tasks import Split
from workers.seeds import order_seed
from workers.states import KeptStates
from workers.tokens import Column, TokenCache

Rows = NDArray[np.int64]
"""Row numbers, shape [rows]."""


WINDOW_BATCHES = 64
"""Batches whose rows are sorted by length together; more pads a little less, and mixes a little less."""


class TaskRows(Protocol):
    """A split as a model takes it, of any kind of task."""

    @property
    def labels(self) -> Tensor:
        """Shape [rows]: class or option indices (int64), or targets of a regression (float32)."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row."""

    def __len__(self) -> int: ...

    def batch(self, rows: Rows, device: torch.device) -> tuple[dict[str, Tensor], Tensor]:
        """Inputs and labels of some rows."""

    def take(self, rows: Rows) -> Self:
        """Some rows as a split of their own."""


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """A split as token ids.

    Attributes:
        ids: Token ids of each row.
        types: Token types of each row, where the family has them.
        labels: Shape [rows]: class indices (int64), or targets of a regression (float32).
        padding: Token id that fills a batch.
        entering: Hidden states that enter a layer, which a batch then carries.
    """

    ids: Sequence[Sequence[int]]
    types: Sequence[Sequence[int]] | None
    labels: Tensor
    padding: int
    entering: KeptStates | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row."""
        return np.array([len(row) for row in self.ids], dtype=np.int64)

    def batch(self, rows: Rows, device: torch.device) -> tuple[dict[str, Tensor], Tensor]:
        """Inputs and labels of some rows, padded to the longest of them."""
        longest = max(len(self.ids[row]) for row in rows)
        ids = np.full((len(rows), longest), self.padding, dtype=np.int64)
        mask = np.zeros((len(rows), longest), dtype=np.int64)
        types = np.zeros((len(rows), longest), dtype=np.int64)
        for index, row in enumerate(rows):
            length = len(self.ids[row])
            ids[index, :length] = self.ids[row]
            mask[index, :length] = 1
            if self.types is not None:
                types[index, :length] = self.types[row]
        arrays = {"input_ids": ids, "attention_mask": mask} | ({} if self.types is None else {"token_type_ids": types})
        inputs = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        if self.entering is not None:
            inputs[ENTERING] = self.entering.batch(rows).to(device)
        return inputs, self.labels[torch.from_numpy(rows)].to(device)

    def take(self, rows: Rows) -> EncodedRows:
        """Some rows as a split of their own."""
        types = None if self.types is None else [self.types[row] for row in rows]
        entering = self.entering and self.entering.take(rows)
        ids, labels = [self.ids[row] for row in rows], self.labels[torch.from_numpy(rows)]
        return EncodedRows(ids, types, labels, self.padding, entering)


def encode(
    tokenizer: PreTrainedTokenizerBase,
    split: Split,
    max_length: int,
    *,
    with_types: bool,
    regression: bool,
    cache: TokenCache | None = None,
) -> EncodedRows:
    """The rows of ``split`` as token ids, cut to ``max_length`` tokens; from ``cache`` if they are there."""

    def tokenise() -> tuple[Column, Column | None]:
        encoded = tokenizer(
            list(split.texts),
            None if split.pairs is None else list(split.pairs),
            truncation=True,
            max_length=max_length,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=with_types,
        )
        return encoded["input_ids"], encoded["token_type_ids"] if with_types else None

    options = {"kind": "rows", "max_length": max_length, "types": with_types}
    columns = (split.texts, split.pairs)
    ids, types = cache.columns(tokenizer, columns, options, tokenise) if cache else tokenise()
    labels = torch.tensor(list(split.labels), dtype=torch.float32 if regression else torch.int64)
    return EncodedRows(ids, types, labels, tokenizer.pad_token_id or 0)


def training_order(lengths: NDArray[np.int64], batch_size: int, steps: int, study_seed: int, replicate: int) -> Rows:
    """Row numbers of each step, shape [steps, batch size]: one shuffled pass over the rows after the other.

    Rows of like length share a batch, so that little is padded: a pass is shuffled, cut into windows of
    ``WINDOW_BATCHES``, each window sorted by length and cut into batches, and the batches are shuffled. What does not
    fill a batch goes to the next pass. A longer run begins like a shorter one.

    Args:
        lengths: Tokens of each row.
        batch_size: Rows a step.
        steps: Number of steps.
        study_seed: Of the study.
        replicate: Of the trial.
    """
    generator = np.random.default_rng(order_seed(study_seed, replicate))
    batches: list[Rows] = []
    waiting = np.empty(0, dtype=np.int64)
    while len(batches) < steps:
        waiting = np.concatenate([waiting, generator.permutation(len(lengths))])
        full = len(waiting) // batch_size * batch_size
        if full:
            bucketed = _by_length(waiting[:full], lengths, batch_size)
            batches += [bucketed[index] for index in generator.permutation(len(bucketed))]
            waiting = waiting[full:]
    return np.stack(batches[:steps])


def _by_length(stream: Rows, lengths: NDArray[np.int64], batch_size: int) -> Rows:
    """The rows of ``stream`` as batches, shape [batches, batch size], sorted by length within each window."""
    window = WINDOW_BATCHES * batch_size
    parts = [stream[start : start + window] for start in range(0, len(stream), window)]
    ordered = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in parts])
    return ordered.reshape(-1, batch_size)


def scoring_batches(lengths: NDArray[np.int64], batch_size: int) -> list[Rows]:
    """Every row once, rows of like length together, so that little is padded."""
    order = np.argsort(lengths, kind="stable")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
