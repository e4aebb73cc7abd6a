"""IST (arXiv 2410.11772): each step updates a few layers, drawn by an importance that is learned along the way.

Importance I has a value a layer, 0 at the start; larger means that the layer is missed more. (The authors' code keeps
S = −I.) Every ``interval`` steps, on one batch of held-out training rows and without gradients: draw ``candidates``
different sets S_k of layers without replacement by sigmoid(−I), so the less important first; suppress the response of
the layers in S_k; the reward is r_k = −loss, and for every i in S_k

    I_i ← I_i − step_size · (r_k − mean_j r_j) · p_i (1 − p_i),    p = sigmoid(I) before the probe,

so importance rises where suppression costs more than the average. Then each step draws the layers that it updates by
sigmoid(I), without replacement; all others get no gradient, and where they lie below, no backward pass. The head is
updated always. What layers the frozen ones keep of AdamW's moments stands still meanwhile.

Unlike the authors' code: rewards are −loss (exp(−loss) fades where the loss is large), I stays within ±20, every
method is suppressed by its own means (``autopeft.adapters.suppression``), and probes read training rows that no step
trains on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autopeft.adapters.head import Classifier
from autopeft.adapters.layers import parts_by_layer
from autopeft.adapters.parts import Part
from autopeft.errors import EvaluationError
from autopeft.study import Fidelity
from search_spaces.configuration import Configuration
from search_spaces.schedule import UpdateSchedule
from workers.batches import Rows, TaskRows, training_order
from workers.memory import kept_bytes, saved_storages
from workers.training import loss_of, precision, said_tokens

PROBE_ROWS = 16
"""Held-out rows of one probe, as in the authors' code."""

HELD_OUT_FRACTION = 0.1
MOST_IMPORTANCE = 20.0

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """How training rows are parted: what is trained on, and what only probes read.

    Attributes:
        trained: Row numbers that steps may read.
        probed: Row numbers that probes read; empty where nothing is learned.
    """

    trained: Rows
    probed: Rows

    def order(self, lengths: NDArray[np.int64], fidelity: Fidelity, study_seed: int, replicate: int) -> Rows:
        """Row numbers of each step, of the rows that are trained on; ``lengths`` are those of all rows."""
        size, steps = fidelity.batch_size, fidelity.steps
        return self.trained[training_order(lengths[self.trained], size, steps, study_seed, replicate)]

    @property
    def sha256(self) -> str:
        """Of the row numbers that probes read, in order, in hexadecimal."""
        return hashlib.sha256(",".join(map(str, self.probed.tolist())).encode()).hexdigest()


def hold_out(row_count: int, schedule: UpdateSchedule | None, seed: int) -> HeldOut:
    """The parting of so many training rows: the same for every configuration of a study whose schedule learns.

    A tenth is held out, and at least the rows of one probe, but never more than half.

    Raises:
        EvaluationError: If there are too few rows to hold one out.
    """
    if schedule is None or not schedule.learns:
        return HeldOut(np.arange(row_count), np.arange(0))
    count = min(max(PROBE_ROWS, round(HELD_OUT_FRACTION * row_count)), row_count // 2)
    if count < 1:
        raise EvaluationError(
            f"{row_count} training row: an update schedule that learns holds rows out for its probes; expected at "
            "least 2, or a schedule with step size 0"
        )
    shuffled = np.random.default_rng([seed % 2**63, row_count]).permutation(row_count)
    return HeldOut(np.sort(shuffled[count:]), shuffled[:count])


@dataclass(slots=True)
class _Figures:
    """What is counted along the way."""

    updates: NDArray[np.int64]
    active: list[int] = field(default_factory=list)
    probes: int = 0


class ImportanceLoop:
    """Decides before each step what it updates; stateless but for the importance, so a run can go on from it.

    Args:
        classifier: With its adapters in.
        schedule: How to go about it.
        rows: Training rows.
        held_out: Which of them probes read.
        seed: Of everything that is drawn.

    Attributes:
        vary: That steps differ in what they update.
        importance: I of each adapted layer, shape [adapted layers].
        layers: Their numbers, rising.
    """

    vary = True

    def __init__(
        self, classifier: Classifier, schedule: UpdateSchedule, rows: TaskRows, held_out: HeldOut, seed: int
    ) -> None:
        by_layer = parts_by_layer(classifier.model)
        self.layers = [layer for layer, parts in enumerate(by_layer) if parts]
        self.importance: Array = np.zeros(len(self.layers))
        self._layer_count = len(by_layer)
        self._parts = [by_layer[layer] for layer in self.layers]
        self._parameters = [[p for part in parts for p in part.parameters().values()] for parts in self._parts]
        self._classifier, self._schedule, self._rows, self._held_out = classifier, schedule, rows, held_out
        self._seed = seed % 2**63
        self._figures = _Figures(np.zeros(len(self.layers), dtype=np.int64))

    def before_step(self, step: int) -> None:
        """Learns if it is time, then draws the layers of this step (from 0) and freezes the others."""
        if not self.layers:
            return
        schedule = self._schedule
        if schedule.learns and step and step % schedule.interval == 0:
            self.probe(step)
        count = schedule.updated_count(len(self.layers))
        chosen = _draw(np.random.default_rng([self._seed, step, 0]), _sigmoid(self.importance), count)
        self._figures.updates[chosen] += 1
        self._figures.active.append(self._update_only(chosen))

    def probe(self, step: int) -> None:
        """Compares some sets of suppressed layers on one held-out batch, and moves the importance."""
        generator, layer_count = np.random.default_rng([self._seed, step, 1]), len(self.layers)
        sets = different_sets(
            generator,
            _sigmoid(-self.importance),
            self._schedule.suppressed_count(layer_count),
            self._schedule.candidate_count(layer_count),
        )
        losses = self._losses(sets, self._probed_rows(step))
        self.importance = learned(self.importance, sets, losses, self._schedule.step_size)
        self._figures.probes += 1

    def state(self) -> dict[str, Any]:
        """What another process needs to go on: the importance, and what was counted."""
        figures = self._figures
        counted = {"updates": figures.updates.tolist(), "active": list(figures.active), "probes": figures.probes}
        return {"importance": self.importance.tolist(), **counted}

    def go_on_from(self, state: Mapping[str, Any]) -> None:
        """Takes in what ``state`` gave."""
        self.importance = np.array(state["importance"], dtype=np.float64)
        updates = np.array(state["updates"], dtype=np.int64)
        self._figures = _Figures(updates, list(state["active"]), int(state["probes"]))

    @property
    def vector(self) -> list[float | None]:
        """Importance of every layer of the backbone; None where a layer has no adapter."""
        found: list[float | None] = [None] * self._layer_count
        for layer, value in zip(self.layers, self.importance, strict=True):
            found[layer] = round(float(value), 6)
        return found

    def record(self, saved_bytes: int, order: Rows) -> dict[str, Any]:
        """What a measurement keeps under ``importance``; all layers are trainable again afterwards.

        Args:
            saved_bytes: The most that a step kept for its backward pass.
            order: Row numbers of each step; with those of the widest, what all layers together would keep is measured.
        """
        figures = self._figures
        updates: list[int | None] = [None] * self._layer_count
        for layer, count in zip(self.layers, figures.updates.tolist(), strict=True):
            updates[layer] = count
        whole = sum(parameter.numel() for layer in self._parameters for parameter in layer)
        return {
            "importance": self.vector,
            "updates": updates,
            "probes": figures.probes,
            "parameters": whole,
            "active_parameters": round(float(np.mean(figures.active)), 1) if figures.active else 0.0,
            "saved_bytes": saved_bytes,
            "saved_bytes_of_all": self._saved_bytes_of_all(order[self._rows.lengths[order].max(1).argmax()]),
            "held_out_rows": len(self._held_out.probed),
            "split_sha256": self._held_out.sha256,
            "seed": self._seed,
        }

    def _update_only(self, chosen: Sequence[int] | Rows) -> int:
        """How many parameters the chosen layers have; all others are frozen."""
        wanted = set(map(int, chosen))
        for position, parameters in enumerate(self._parameters):
            for parameter in parameters:
                parameter.requires_grad_(position in wanted)
        return sum(parameter.numel() for position in wanted for parameter in self._parameters[position])

    def _saved_bytes_of_all(self, widest: Rows) -> int:
        self._update_only(range(len(self.layers)))
        device = next(self._classifier.parameters()).device
        inputs, labels = self._rows.batch(widest, device)
        with precision(self._classifier), saved_storages() as saved:
            loss = loss_of(self._classifier(inputs, last=said_tokens(labels)), labels)
        return kept_bytes(saved, self._classifier) if loss.requires_grad else 0

    def _probed_rows(self, step: int) -> Rows:
        """The held-out rows of this probe: one shuffled pass after the other."""
        held = self._held_out.probed
        start = (step // self._schedule.interval - 1) * PROBE_ROWS
        places = np.arange(start, start + min(PROBE_ROWS, len(held)))
        passes = [
            np.random.default_rng([self._seed, int(turn), 2]).permutation(len(held)) for turn in places // len(held)
        ]
        return held[[order[place % len(held)] for order, place in zip(passes, places, strict=True)]]

    @torch.inference_mode()
    def _losses(self, sets: Sequence[Sequence[int]], chosen: Rows) -> list[float]:
        device = next(self._classifier.parameters()).device
        inputs, labels = self._rows.batch(chosen, device)
        losses = []
        for suppressed in sets:
            with ExitStack() as stack, precision(self._classifier):
                for part in _parts_of(self._parts, suppressed):
                    stack.enter_context(part.suppressed(self._schedule.suppression_factor))
                losses.append(float(loss_of(self._classifier(inputs, last=said_tokens(labels)), labels)))
        return losses


def importance_loop(
    classifier: Classifier, configuration: Configuration, rows: TaskRows, held_out: HeldOut, seed: int
) -> ImportanceLoop | None:
    """What decides the updates of ``configuration``, which is in ``classifier``; None if every step updates all."""
    schedule = configuration.training.schedule
    return None if schedule is None else ImportanceLoop(classifier, schedule, rows, held_out, seed)


def learned(importance: Array, sets: Sequence[Sequence[int]], losses: Sequence[float], step_size: float) -> Array:
    """The importance after a probe, shape [layers]; unchanged where all losses are equal.

    Args:
        importance: Before it, shape [layers].
        sets: The layers that each candidate suppressed.
        losses: Mean loss under each candidate; one that is not finite teaches nothing.
        step_size: μ.
    """
    if not np.isfinite(losses).all() or min(losses) == max(losses):
        return importance
    moved = importance.copy()
    share = _sigmoid(importance)
    slopes, mean = share * (1 - share), float(np.mean(losses))
    for suppressed, loss in zip(sets, losses, strict=True):
        moved[list(suppressed)] += step_size * (loss - mean) * slopes[list(suppressed)]
    return np.clip(moved, -MOST_IMPORTANCE, MOST_IMPORTANCE)


def different_sets(generator: np.random.Generator, weights: Array, size: int, count: int) -> list[tuple[int, ...]]:
    """``count`` different sets of ``size`` of the layers, each drawn without replacement by ``weights``.

    There must be so many; a repeat of an earlier set is drawn again.
    """
    sets: dict[tuple[int, ...], None] = {}
    while len(sets) < count:
        sets.setdefault(tuple(sorted(_draw(generator, weights, size).tolist())))
    return list(sets)


def _draw(generator: np.random.Generator, weights: Array, count: int) -> Rows:
    chosen: Rows = generator.choice(len(weights), size=count, replace=False, p=weights / weights.sum())
    return chosen


def _sigmoid(values: Array) -> Array:
    share: Array = 1.0 / (1.0 + np.exp(-values))
    return share


def _parts_of(parts: Sequence[tuple[Part, ...]], chosen: Sequence[int]) -> list[Part]:
    return [part for position in chosen for part in parts[position]]
