"""DiffoRA's search (arXiv 2502.08905): gates on the LoRA of every module, learned by bilevel optimisation.

With logits a, gates γ = sigmoid(a) or softmax(a) over a layer, and LoRA's scaling s, a module computes
``h = W0 x + γ s B A x``: a gate is a factor on peft's own scaling, so γ = 1 is LoRA bit for bit. The training rows are
halved: after a warm-up of the weights w alone, each step first takes ``a ← a − η ∇_a L_val(w', a)`` on a batch of the
one half, then w takes a step of training on a batch of the other, which never sees the first.

First order: w' = w. Second order (DARTS, arXiv 1806.09055, eq. 7 and 8): w' = w − ξ ∇_w L_train(w, a), and from the
gradient there comes off ``ξ (∇_a L_train(w⁺, a) − ∇_a L_train(w⁻, a)) / 2ε`` with w± = w ± ε ∇_w' L_val(w', a) and
ε = 0.01 / ‖∇_w' L_val‖; ξ is the weights' learning rate. Gates start equal and part slowly: look at the margins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autopeft.adapters.head import Classifier
from autopeft.adapters.methods.stock import ADAPTER_NAME
from autopeft.errors import ConfigurationError, DivergedError, EvaluationError
from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration
from search_spaces.methods.lora import Lora
from search_spaces.selection import WARM_UP_FRACTION, Entry, Selection
from workers.batches import Rows, TaskRows, training_order
from workers.memory import MemoryMeter
from workers.training import CLIP_NORM, WEIGHT_DECAY, BetweenSteps, go_on, loss_of, precision, said_tokens

GATE_BETAS = (0.5, 0.999)
GATE_WEIGHT_DECAY = 1e-3
PERTURBATION = 0.01


@dataclass(frozen=True, slots=True)
class Halves:
    """How training rows are parted: what the weights read, and what the gates read."""

    weights: Rows
    gates: Rows

    @property
    def sha256(self) -> str:
        """Of the row numbers that the gates read, in hexadecimal."""
        return hashlib.sha256(",".join(map(str, self.gates.tolist())).encode()).hexdigest()


def halve(row_count: int, seed: int) -> Halves:
    """Two halves of so many training rows.

    Raises:
        EvaluationError: If there are too few rows.
    """
    if row_count < 2:
        raise EvaluationError(f"{row_count} training row: a selection halves the rows; expected at least 2")
    shuffled = np.random.default_rng([seed % 2**63, row_count, 1]).permutation(row_count)
    return Halves(np.sort(shuffled[: row_count - row_count // 2]), np.sort(shuffled[row_count - row_count // 2 :]))


class Gates:
    """The gates of a supernet, as factors on peft's scalings.

    Args:
        classifier: With LoRA in.
        configuration: What is in it.
        backbone: Its shapes.
        relaxation: ``sigmoid`` or ``softmax``.

    Raises:
        ConfigurationError: If something else than LoRA is in it, or nothing.

    Attributes:
        entries: (layer, site) of each gate, lowest layer first.
        logits: Shape [entries].
    """

    def __init__(
        self, classifier: Classifier, configuration: Configuration, backbone: Backbone, relaxation: str
    ) -> None:
        placements = list(configuration.placements())
        other = sorted({method.name for _, _, method in placements if not isinstance(method, Lora)})
        if other or not placements:
            got = ", ".join(other) or "nothing"
            raise ConfigurationError(f"a selection chooses among modules with LoRA; the configuration has {got}")
        self.entries: list[Entry] = [(layer, site) for layer, site, _ in placements]
        headless = classifier.model.base_model
        self._layers: list[Any] = [
            headless.get_submodule(backbone.module(layer, site).path) for layer, site in self.entries
        ]
        self._scalings = [float(layer.scaling[ADAPTER_NAME]) for layer in self._layers]
        device = next(classifier.parameters()).device
        self.logits = nn.Parameter(torch.zeros(len(self.entries), device=device))
        self._softmax = relaxation == "softmax"
        self._rows = [
            [index for index, entry in enumerate(self.entries) if entry[0] == layer]
            for layer in sorted({layer for layer, _ in self.entries})
        ]

    def values(self) -> Tensor:
        """The gates, shape [entries], each in (0, 1)."""
        if not self._softmax:
            return torch.sigmoid(self.logits)
        gates = torch.zeros_like(self.logits)
        for row in self._rows:
            gates = gates.index_put((torch.tensor(row, device=gates.device),), torch.softmax(self.logits[row], 0))
        return gates

    def stand(self, gates: Tensor) -> None:
        """Puts ``gates``, shape [entries], before every LoRA."""
        for layer, scaling, gate in zip(self._layers, self._scalings, gates.unbind(), strict=True):
            layer.scaling[ADAPTER_NAME] = gate * scaling

    def take_off(self) -> None:
        """Puts peft's own scalings back."""
        for layer, scaling in zip(self._layers, self._scalings, strict=True):
            layer.scaling[ADAPTER_NAME] = scaling

    def fold_in(self) -> None:
        """Multiplies each B by its gate: with peft's own scalings the same is computed as under the gates."""
        self.take_off()
        with torch.no_grad():
            for layer, gate in zip(self._layers, self.values(), strict=True):
                layer.lora_B[ADAPTER_NAME].weight.mul_(gate)

    def scores(self) -> dict[Entry, float]:
        """The gates by entry, as plain numbers."""
        return dict(zip(self.entries, self.values().detach().cpu().tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search of a supernet found.

    Attributes:
        scores: The gate of each (layer, site).
        losses: Mean loss of the weights' steps, in ten parts.
        halves: How the rows were parted.
    """

    scores: Mapping[Entry, float]
    losses: Sequence[float]
    halves: Halves


def search(
    classifier: Classifier,
    gates: Gates,
    selection: Selection,
    rows: TaskRows,
    halves: Halves,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    between_steps: BetweenSteps = go_on,
    meter: MemoryMeter | None = None,
) -> Searched:
    """The gates after ``steps`` of bilevel search; the weights of the supernet stay in ``classifier``.

    Args:
        classifier: With the supernet in.
        gates: Of it.
        selection: How to go about it.
        rows: Training rows.
        halves: What weights and gates read.
        steps: Of the weights.
        batch_size: Rows of a step, of the weights and of the gates.
        learning_rate: Of the weights; constant.
        seed: Of the order of rows.
        between_steps: Called after every step.
        meter: What measures peak memory, at the step of the weights with the longest rows.

    Raises:
        DivergedError: If a loss is not finite.
    """
    meter = meter or MemoryMeter(classifier, next(classifier.parameters()).device)
    orders = [
        half[training_order(rows.lengths[half], batch_size, steps, seed, number)]
        for number, half in enumerate((halves.weights, halves.gates))
    ]
    weights = list(classifier.trained_parameters().values())
    learner = torch.optim.AdamW(weights, lr=learning_rate, weight_decay=WEIGHT_DECAY)
    gate_learner = torch.optim.Adam(
        [gates.logits], lr=selection.gate_rate, betas=GATE_BETAS, weight_decay=GATE_WEIGHT_DECAY
    )
    level = _Bilevel(classifier, gates, rows, weights, learning_rate if selection.order == 2 else 0.0)
    losses, widest = [], int(rows.lengths[orders[0]].max(1).argmax())
    with gates_off_afterwards(gates):
        for step, (trained, judged) in enumerate(zip(*orders, strict=True)):
            if step >= round(WARM_UP_FRACTION * steps):
                gates.logits.grad = level.gate_gradient(trained, judged)
                gate_learner.step()
            with meter.forward_pass(step == widest):
                loss = level.loss(trained, gates.values().detach())
            losses.append(level.weight_step(loss, learner))
            between_steps(step + 1)
        meter.after_step(weights, learner)
    parts = [float(np.mean(part)) for part in np.array_split(losses, min(10, len(losses)))]
    if not np.isfinite(parts).all():
        raise DivergedError(f"the supernet's loss is not finite in {steps} steps: lower learning rates")
    return Searched(gates.scores(), parts, halves)


@contextmanager
def gates_off_afterwards(gates: Gates) -> Iterator[None]:
    """Peft's own scalings stand again afterwards, whatever happens."""
    try:
        yield
    finally:
        gates.take_off()


class _Bilevel:
    """The two gradients. ``rate`` is ξ; 0 is the first order."""

    def __init__(
        self, classifier: Classifier, gates: Gates, rows: TaskRows, weights: Sequence[nn.Parameter], rate: float
    ) -> None:
        self._classifier, self._gates, self._rows = classifier, gates, rows
        self._weights, self._rate = weights, rate
        self._device = next(classifier.parameters()).device

    def loss(self, chosen: Rows, gates: Tensor) -> Tensor:
        """Mean loss on some rows under some gates."""
        self._gates.stand(gates)
        inputs, labels = self._rows.batch(chosen, self._device)
        with precision(self._classifier):
            return loss_of(self._classifier(inputs, last=said_tokens(labels)), labels)

    def weight_step(self, loss: Tensor, learner: torch.optim.Optimizer) -> float:
        """One step of the weights alone down ``loss``, whose value comes back."""
        learner.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._weights, CLIP_NORM)
        learner.step()
        return float(loss.detach())

    def gate_gradient(self, trained: Rows, judged: Rows) -> Tensor:
        """∇_a L_val, shape [entries], of the first or the second order; no weight is changed."""
        if self._rate == 0.0:
            return self._gradient(judged, [self._gates.logits])[0]
        before = [weight.detach().clone() for weight in self._weights]
        self._move(before, self._gradient(trained, self._weights), -self._rate)
        first, *slopes = self._gradient(judged, [self._gates.logits, *self._weights])
        norm = float(torch.sqrt(sum((slope.double().square().sum() for slope in slopes), torch.zeros(()).double())))
        size = PERTURBATION / max(norm, 1e-12)
        sides = []
        for sign in (1.0, -1.0):
            self._move(before, slopes, sign * size)
            sides.append(self._gradient(trained, [self._gates.logits])[0])
        self._move(before, slopes, 0.0)
        return first - self._rate * (sides[0] - sides[1]) / (2 * size)

    def _gradient(self, chosen: Rows, of: Sequence[Tensor]) -> list[Tensor]:
        return list(torch.autograd.grad(self.loss(chosen, self._gates.values()), list(of)))

    def _move(self, before: Sequence[Tensor], directions: Sequence[Tensor], size: float) -> None:
        """Puts every weight at ``before + size · direction``; at ``before`` itself, bit for bit, for 0."""
        with torch.no_grad():
            for weight, start, direction in zip(self._weights, before, directions, strict=True):
                weight.copy_(start if size == 0.0 else start + size * direction)
