"""The rows of a step end to end, in as few sequences as first-fit decreasing finds, instead of one padded row each.

What a step learns from, and its loss, stay what they are; only padding goes. See ``autopeft.adapters.packing`` for what
the model is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.batches import Rows


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Which of some rows share a sequence of at most ``capacity`` tokens: longest first, into the first with room.

    A row that is longer has a sequence of its own.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        place = next((index for index, left in enumerate(room) if left >= lengths[row]), None)
        if place is None:
            place = len(bins)
            bins.append([])
            room.append(capacity)
        bins[place].append(row)
        room[place] -= lengths[row]
    return bins


def packed_batch(
    ids: Sequence[Sequence[int]],
    chosen: Rows,
    said: Callable[[int], Iterable[tuple[int, int]]],
    capacity: int,
    padding: int,
    ignored: int,
    device: torch.device,
) -> tuple[dict[str, Tensor], Tensor]:
    """Inputs of some rows in sequences of at most ``capacity`` tokens, and labels, shape [sequences, tokens].

    Args:
        ids: Token ids of all rows.
        chosen: The rows.
        said: The pieces of a row that labels are on, none of them its first token.
        capacity: Tokens of a sequence.
        padding: Token id that fills a sequence.
        ignored: Label of a token on which there is no loss.
        device: Where.
    """
    lengths = [len(ids[row]) for row in chosen]
    bins = first_fit(lengths, capacity)
    shape = len(bins), max(sum(lengths[index] for index in rows) for rows in bins)
    tokens, labels = np.full(shape, padding, dtype=np.int64), np.full(shape, ignored, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    for place, rows in enumerate(bins):
        start = 0
        for row in (int(chosen[index]) for index in rows):
            end = start + len(ids[row])
            tokens[place, start:end] = ids[row]
            positions[place, start:end] = np.arange(end - start)
            for first, last in said(row):
                labels[place, start + first : start + last] = ids[row][first:last]
            start = end
    inputs = {"input_ids": _tensor(tokens, device), "position_ids": _tensor(positions, device)}
    return inputs, _tensor(labels, device)


def _tensor(array: NDArray[np.int64], device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device)
