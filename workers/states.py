"""Hidden states of every token of a split, in a file that all workers of a host map: rows of their own lengths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

VALUES, ENDS, TYPE = "values.npy", "ends.npy", "type.txt"
_TYPES = {str(kind).removeprefix("torch."): kind for kind in (torch.float32, torch.bfloat16, torch.float16)}


@dataclass(frozen=True, slots=True)
class KeptStates:
    """The states that enter one layer.

    Attributes:
        values: Shape [tokens of all rows, width], float32 or float16; mapped, not read.
        starts: First token of each row.
        ends: Behind the last token of each row.
        type: What they were computed as, and are given as.
    """

    values: NDArray[np.floating]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    type: torch.dtype

    @classmethod
    def open(cls, folder: Path) -> KeptStates:
        """The states in ``folder``.

        Raises:
            OSError: If a file is missing.
            ValueError: If a file is not what it should be.
        """
        values = np.load(folder / VALUES, mmap_mode="r")
        ends = np.load(folder / ENDS)
        kind = _TYPES.get((folder / TYPE).read_text(encoding="ascii"))
        if kind is None or len(ends) == 0 or ends[-1] != len(values):
            raise ValueError(f"{folder}: not the states of {len(ends)} rows")
        return cls(values, np.concatenate([[0], ends[:-1]]), ends, kind)

    def batch(self, rows: NDArray[np.int64]) -> Tensor:
        """The states of some rows, shape [rows, tokens of the longest, width]; zero where a row has ended."""
        lengths = self.ends[rows] - self.starts[rows]
        padded = np.zeros((len(rows), int(lengths.max()), self.values.shape[1]), dtype=np.float32)
        for index, row in enumerate(rows):
            padded[index, : lengths[index]] = self.values[self.starts[row] : self.ends[row]]
        return torch.from_numpy(padded).to(self.type)

    def take(self, rows: NDArray[np.int64]) -> KeptStates:
        """Those of some rows."""
        return KeptStates(self.values, self.starts[rows], self.ends[rows], self.type)


class StatesFile:
    """Writes the states of a split into a folder, some rows at a time and in any order.

    Args:
        folder: An empty folder.
        lengths: Tokens of each row.
        width: Of a state.
        kind: float32 or float16, on the disk.
    """

    def __init__(self, folder: Path, lengths: NDArray[np.int64], width: int, kind: type[np.floating]) -> None:
        self._ends = np.cumsum(lengths, dtype=np.int64)
        self._folder = folder
        shape = (int(self._ends[-1]), width)
        self._values = np.lib.format.open_memmap(folder / VALUES, mode="w+", dtype=kind, shape=shape)

    def put(self, rows: NDArray[np.int64], states: Tensor) -> None:
        """Writes the states of some rows, shape [rows, tokens, width]; what lies behind a row's length is left out.

        Raises:
            ValueError: If a value is too large for the file's type.
        """
        numbers = states.float().cpu().numpy()
        for index, row in enumerate(rows):
            start = int(self._ends[row - 1]) if row else 0
            length = int(self._ends[row]) - start
            with np.errstate(over="ignore"):
                self._values[start : start + length] = numbers[index, :length]
            if not np.isfinite(self._values[start : start + length]).all():
                raise ValueError(f"the hidden states of row {row} do not fit {self._values.dtype}")

    def close(self, kind: torch.dtype) -> None:
        """Writes what is left: lengths, and the type that the states were computed as."""
        self._values.flush()
        del self._values
        np.save(self._folder / ENDS, self._ends)
        (self._folder / TYPE).write_text(str(kind).removeprefix("torch."), encoding="ascii")
