"""Token ids on disk by hash, so that the next worker need not tokenise: two ragged columns of whole numbers an entry.

What cannot be kept (no room, no rights) is tokenised again each time, with a note in the log.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from workers.shelf import Shelf, key_of

CODE = "tokens/2"
"""Changes whenever the same rows come out as other ids."""

Column = Sequence[Sequence[int]]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TokenCache:
    """Tokenised rows, kept.

    Attributes:
        shelf: Where.
    """

    shelf: Shelf

    def columns(
        self,
        tokenizer: PreTrainedTokenizerBase,
        texts: Sequence[Sequence[str] | None],
        options: dict[str, object],
        tokenise: Callable[[], tuple[Column, Column | None]],
    ) -> tuple[Column, Column | None]:
        """The two columns that ``tokenise`` makes, from the disk if they are there.

        Args:
            tokenizer: What ``tokenise`` uses.
            texts: All columns of texts that it reads.
            options: All else that its answer depends on, as plain values.
            tokenise: Makes the columns; the second may be None.
        """
        parts = {"code": CODE, "tokenizer": tokenizer_sha256(tokenizer), "texts": _texts_sha256(texts), **options}
        key = key_of(parts)
        try:
            if (folder := self.shelf.find(key)) is not None:
                return _read(folder)
        except (OSError, ValueError) as error:
            _log.warning("tokens in %s cannot be read: %s", self.shelf.root, error)
        made = tokenise()
        size = sum(8 * len(column) + 4 * sum(map(len, column)) for column in made if column is not None)
        try:
            self.shelf.fill(key, size, lambda part: _write(part, made))
        except OSError as error:
            _log.warning("tokens are not kept in %s: %s", self.shelf.root, error)
        return made


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of all that decides what a tokenizer makes of a text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = tokenizer.get_vocab() if backend is None else json.loads(backend.to_str())
    for setting in ("truncation", "padding"):  # left there by earlier calls
        rules.pop(setting, None)
    inner = json.dumps(rules, sort_keys=True)
    special = json.dumps({name: str(token) for name, token in tokenizer.special_tokens_map.items()}, sort_keys=True)
    kind = f"{type(tokenizer).__name__} {version('transformers')} {version('tokenizers')}"
    return hashlib.sha256("\n".join([kind, special, inner]).encode()).hexdigest()


def _texts_sha256(columns: Sequence[Sequence[str] | None]) -> str:
    digest = hashlib.sha256()
    for column in columns:
        digest.update(b"none" if column is None else f"{len(column)}:".encode())
        for text in column or ():
            encoded = text.encode("utf-8", "surrogatepass")
            digest.update(f"{len(encoded)}:".encode() + encoded)
    return digest.hexdigest()


def _write(folder: Path, columns: tuple[Column, Column | None]) -> None:
    for name, column in zip(("first", "second"), columns, strict=True):
        if column is not None:
            flat = np.fromiter(chain.from_iterable(column), dtype=np.int32)
            np.save(folder / f"{name}.npy", flat)
            np.save(folder / f"{name}_ends.npy", np.cumsum([len(row) for row in column], dtype=np.int64))


def _read(folder: Path) -> tuple[Column, Column | None]:
    return _column(folder, "first"), _column(folder, "second") if (folder / "second.npy").exists() else None


def _column(folder: Path, name: str) -> list[list[int]]:
    flat: NDArray[np.int32] = np.load(folder / f"{name}.npy")
    ends: NDArray[np.int64] = np.load(folder / f"{name}_ends.npy")
    return [row.tolist() for row in np.split(flat, ends[:-1])] if len(ends) else []
