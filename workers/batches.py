"""Rows as token ids, the order in which training sees them, and batches padded to their own longest row.

The order depends on the study's seed and the replicate alone. Rows are tokenised once and kept.
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

from autopeft.tasks import Split
from workers.seeds import order_seed

Rows = NDArray[np.int64]
"""Row numbers, shape [rows]."""


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
    """

    ids: Sequence[Sequence[int]]
    types: Sequence[Sequence[int]] | None
    labels: Tensor
    padding: int

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
        return inputs, self.labels[torch.from_numpy(rows)].to(device)

    def take(self, rows: Rows) -> EncodedRows:
        """Some rows as a split of their own."""
        types = None if self.types is None else [self.types[row] for row in rows]
        return EncodedRows([self.ids[row] for row in rows], types, self.labels[torch.from_numpy(rows)], self.padding)


def encode(
    tokenizer: PreTrainedTokenizerBase, split: Split, max_length: int, *, with_types: bool, regression: bool
) -> EncodedRows:
    """The rows of ``split`` as token ids, cut to ``max_length`` tokens."""
    encoded = tokenizer(
        list(split.texts),
        None if split.pairs is None else list(split.pairs),
        truncation=True,
        max_length=max_length,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=with_types,
    )
    labels = torch.tensor(list(split.labels), dtype=torch.float32 if regression else torch.int64)
    types = encoded["token_type_ids"] if with_types else None
    return EncodedRows(encoded["input_ids"], types, labels, tokenizer.pad_token_id or 0)


def training_order(row_count: int, batch_size: int, steps: int, study_seed: int, replicate: int) -> Rows:
    """Row numbers of each step, shape [steps, batch size]: one shuffled pass over the rows after the other."""
    generator = np.random.default_rng(order_seed(study_seed, replicate))
    passes = -(-steps * batch_size // row_count)
    stream = np.concatenate([generator.permutation(row_count) for _ in range(passes)])
    return stream[: steps * batch_size].reshape(steps, batch_size)


def scoring_batches(lengths: NDArray[np.int64], batch_size: int) -> list[Rows]:
    """Every row once, rows of like length together, so that little is padded."""
    order = np.argsort(lengths, kind="stable")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
