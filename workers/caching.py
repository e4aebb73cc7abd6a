"""What enters the lowest trained layer, kept on disk and shared by all workers of a host.

Layers below the lowest one that a trial may train compute the same for every trial and every pass over the rows. Their
output is computed once for each (rows, layer) and read from then on, in training and in scoring. Where reading is not
quicker, or nothing can be kept, the layers compute it anew: they are frozen and in evaluation mode either way, and no
graph is built below the first trained weight, so only the time differs.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from autopeft.adapters.head import Classifier
from autopeft.adapters.quantisation import quantisation_of
from autopeft.adapters.replay import ENTERING, refusal, replaying, states_entering
from autopeft.settings import CacheMode, cache_folder, cache_quota_bytes
from workers.answers import AnswerRows, Sequences
from workers.batches import EncodedRows, Rows, TaskRows, scoring_batches
from workers.images import ImageRows
from workers.shelf import Shelf, key_of
from workers.states import KeptStates, StatesFile
from workers.training import precision

CODE = "states/1"
"""Changes whenever the same rows give other states."""

COMPUTED = "computed"
"""What details say of states that were not kept."""

MOST_HASHES = 8
"""Splits whose hash is remembered."""

FINDING, FINDING_BYTES = "why-not", 1000
"""The file of an entry that says why states are not kept where that is measured; empty: they are."""

BUILD_BATCH = 32
SAMPLE_ROWS = 16
_TYPES = {CacheMode.FP16: np.float16}
_log = logging.getLogger(__name__)

Keepable = EncodedRows | Sequences | ImageRows
R = TypeVar("R", bound=Keepable)


def go_on(_steps: int) -> None:
    """Never ends a build."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where the forward passes of a trial begin.

    Attributes:
        layer: The first layer that computes where a batch carries states.
        splits: Rows, with the states that enter that layer if they are kept.
        details: What was done, and why, as plain JSON values.
    """

    layer: int
    splits: tuple[TaskRows, ...]
    details: Mapping[str, object]


@dataclass(slots=True)
class StateCache:
    """The kept states of one resident backbone.

    Attributes:
        classifier: The backbone with its head.
        backbone_sha256: Hash of its weights and configuration.
        mode: Whether states are kept, and as what.
        shelf: Where.
    """

    classifier: Classifier
    backbone_sha256: str
    mode: CacheMode
    shelf: Shelf
    _hashes: list[tuple[Keepable, str]] = field(default_factory=list)
    _pays: dict[int, str | None] = field(default_factory=dict)

    @classmethod
    def of(cls, classifier: Classifier, backbone_sha256: str, mode: CacheMode) -> StateCache:
        """The cache in the user's cache folder."""
        return cls(classifier, backbone_sha256, mode, Shelf(cache_folder() / "states", cache_quota_bytes()))

    def begin(
        self, layer: int, splits: tuple[TaskRows, ...], between_steps: Callable[[int], None] = go_on
    ) -> Beginning:
        """The rows with the states that enter ``layer``, built if they are not there and if that pays.

        Args:
            layer: The lowest that may be trained; the number of layers if only the head is.
            splits: Rows, at least those to train on.
            between_steps: Called again and again while states are built or awaited; what it raises ends that.
        """
        self.classifier.first_layer = layer
        why_not = self._why_not(layer, splits[0])
        if why_not is not None:
            return Beginning(layer, splits, {"layer": layer, "states": COMPUTED, "why": why_not})
        try:
            kept = tuple(self._keep(rows, layer, between_steps) for rows in splits)
        except (OSError, ValueError) as error:
            _log.warning("states entering layer %d are not kept: %s", layer, error)
            return Beginning(layer, splits, {"layer": layer, "states": COMPUTED, "why": str(error)})
        how = "fp16" if self.mode is CacheMode.FP16 else "fp32"
        return Beginning(layer, kept, {"layer": layer, "states": how})

    def _why_not(self, layer: int, train: TaskRows) -> str | None:
        """Why states entering ``layer`` are computed anew each time; None if they are kept."""
        if layer == 0:
            return "the lowest layer is trained"
        if self.mode is CacheMode.OFF:
            return "cache off"
        if isinstance(train, AnswerRows) and train.is_packed:
            return "rows are packed, each step's in its own way"
        if (reason := refusal(self.classifier.model)) is not None:
            return reason
        if self.mode is CacheMode.AUTO:
            if layer not in self._pays:
                self._pays[layer] = self._found(layer, train)
            return self._pays[layer]
        return None

    def _found(self, layer: int, train: TaskRows) -> str | None:
        """What ``_measured`` found, once for a cache folder.

        Losses with kept states differ from those without in the last bits, so that a clock that is read again would
        make trials of one search, and searches of one seed, unequal.
        """
        assert isinstance(train, EncodedRows | Sequences | ImageRows)

        def write(part: Path) -> None:
            (part / FINDING).write_text(self._measured(layer, train) or "", encoding="utf-8")

        try:
            folder = self.shelf.fill(key_of({**self.key_parts(train, layer), "entry": FINDING}), FINDING_BYTES, write)
            return (folder / FINDING).read_text(encoding="utf-8") or None
        except OSError as error:
            return f"nothing can be kept: {error}"

    def _measured(self, layer: int, train: TaskRows) -> str | None:
        """Why reading would be slower than computing, measured now; None if it is quicker.

        Raises:
            OSError: If nothing can be kept.
        """
        middle = np.argsort(train.lengths, kind="stable")[len(train) // 2 :][:SAMPLE_ROWS]
        seconds, states = 0.0, None
        for _ in range(2):  # the first warms up
            started = time.perf_counter()
            states = self._compute(layer, train, middle)
            if states.device.type == "cuda":
                torch.cuda.synchronize(states.device)
            seconds = time.perf_counter() - started
        assert states is not None
        read = states.numel() * 4 / self.shelf.read_bytes_per_second()
        if read < seconds:
            return None
        return f"reading {SAMPLE_ROWS} rows takes {read * 1e3:.1f} ms, computing them {seconds * 1e3:.1f} ms"

    def _keep(self, rows: TaskRows, layer: int, between_steps: Callable[[int], None]) -> TaskRows:
        if isinstance(rows, AnswerRows):
            if rows.options is not None:
                return replace(rows, options=self._with_states(rows.options, layer, between_steps))
            return self._with_states(rows, layer, between_steps)
        assert isinstance(rows, EncodedRows | ImageRows)
        return self._with_states(rows, layer, between_steps)

    def _with_states(self, rows: R, layer: int, between_steps: Callable[[int], None]) -> R:
        key = key_of(self.key_parts(rows, layer))
        folder = self.shelf.find(key)
        if folder is None:
            kind = _TYPES.get(self.mode, np.float32)
            tokens, width = self._sizes(rows, layer)
            size = int(tokens.sum()) * width * np.dtype(kind).itemsize

            def write(part: Path) -> None:
                self._build(rows, layer, StatesFile(part, tokens, width, kind), between_steps)

            folder = self.shelf.fill(key, size, write, lambda: between_steps(0))
        return replace(rows, entering=KeptStates.open(folder))

    def key_parts(self, rows: Keepable, layer: int) -> dict[str, object]:
        """All that the states depend on; another value of any of these is another entry."""
        device = next(self.classifier.parameters()).device
        return {
            "code": CODE,
            "backbone": self.backbone_sha256,
            "rows": self._hash(rows),
            "layer": layer,
            "type": "float16" if self.mode is CacheMode.FP16 else "float32",
            "arithmetic": [quantisation_of(self.classifier.model), self.classifier.precision],
            "device": device.type if device.type == "cpu" else torch.cuda.get_device_name(device),
            "versions": [torch.__version__, version("transformers")],
        }

    def _hash(self, rows: Keepable) -> str:
        """``rows_sha256``, once for the same rows; they are held, so that no others can come to lie in their place."""
        found = next((known for seen, known in self._hashes if seen is rows), None)
        if found is None:
            found = rows_sha256(rows)
            self._hashes = [*self._hashes[-MOST_HASHES:], (rows, found)]
        return found

    def _sizes(self, rows: Keepable, layer: int) -> tuple[Rows, int]:
        """Tokens of each row, and the width of a state; found by computing one row."""
        states = self._compute(layer, rows, np.zeros(1, dtype=np.int64))
        if isinstance(rows, ImageRows):
            return np.full(len(rows), states.shape[1], dtype=np.int64), states.shape[2]
        return rows.lengths, states.shape[2]

    def _build(self, rows: Keepable, layer: int, file: StatesFile, between_steps: Callable[[int], None]) -> None:
        kind = torch.float32
        lower, rows = self._from_below(rows, layer)
        for chosen in scoring_batches(rows.lengths, BUILD_BATCH):
            states = self._compute(layer, rows, chosen, lower)
            file.put(chosen, states)
            kind = states.dtype
            between_steps(0)
        file.close(kind)

    def _from_below(self, rows: R, layer: int) -> tuple[int, R]:
        """The nearest lower layer whose states are kept unrounded, and the rows with them; 0 and the rows if none."""
        for lower in range(layer - 1, 0, -1) if self.mode is not CacheMode.FP16 else ():
            if (folder := self.shelf.find(key_of(self.key_parts(rows, lower)))) is not None:
                return lower, replace(rows, entering=KeptStates.open(folder))
        return 0, rows

    def _compute(self, layer: int, rows: TaskRows | Sequences, chosen: Rows, lower: int = 0) -> torch.Tensor:
        """The states of some rows that enter ``layer``; from those of ``lower`` if the rows carry them."""
        device, model = next(self.classifier.parameters()).device, self.classifier.model
        inputs, _ = rows.batch(chosen, device)
        given = inputs.pop(ENTERING, None)
        with precision(self.classifier), replaying(model, lower, given) if given is not None else nullcontext():
            return states_entering(model, layer, inputs)


def rows_sha256(rows: Keepable) -> str:
    """Hash of what a model is given of ``rows``: with it go the data, the tokenizer and the greatest length."""
    digest = hashlib.sha256(type(rows).__name__.encode())
    if isinstance(rows, ImageRows):
        for tensor in (rows.pixels, rows.mean, rows.spread, torch.tensor([rows.scale])):
            digest.update(str(list(tensor.shape)).encode() + tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()
    digest.update(np.array([rows.padding], dtype=np.int64).tobytes())
    for column in (rows.ids, rows.types if isinstance(rows, EncodedRows) else None):
        digest.update(b"none" if column is None else np.array([len(row) for row in column], dtype=np.int64).tobytes())
        digest.update(np.fromiter(chain.from_iterable(column or ()), dtype=np.int64).tobytes())
    return digest.hexdigest()
