"""Peak memory of training, by arithmetic: nothing is loaded, so it holds for models of any size.

At the peak there are weights, gradients, Adam's two moments, what autograd keeps of the forward pass
(``search_spaces.passes``), which begins at the lowest layer that anything is trained in, and the gradients of the
widest tensors while they are handed on. The batch itself and the allocator's own losses are left out. With checkpointed
layers each keeps its input, and one at a time all of its own. Held against measured peaks on CPUs, in float32 and under
bfloat16 autocast; on a GPU, whose autocast leaves other operations in float32, it has not been run.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration, LayerPlan
from search_spaces.cost import trainable_parameters
from search_spaces.errors import ConfigurationError
from search_spaces.methods.lora import MOVE_THE_WEIGHT, Lora
from search_spaces.methods.vera import Vera
from search_spaces.passes import Batch, LayerPass, traits_of
from search_spaces.quantisation import QUANTISATIONS, frozen_bytes
from search_spaces.sizes import require_choice, require_whole
from search_spaces.tape import FULL, HALF, Flow, Tape

HEADS = ("none", "mean", "stock", "language")
ATTENTIONS = ("sdpa", "eager")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True, slots=True)
class Workload:
    """A training step, and what stands on the backbone.

    Attributes:
        rows: Of a batch.
        tokens: Of its longest row (of an image: patches and what is added to them).
        head: One of ``HEADS``: mean pooling and a linear layer, the family's stock head for classes, or its own
            language-model head.
        head_parameters: Newly initialised ones, which are trained.
        other_parameters: Frozen ones outside the backbone, like a language-model head that is not tied.
        outputs: Classes, or the vocabulary of a language model.
        said_tokens: Of a language model, how many tokens at the end of each row get logits; 0 for all.
        attention: One of ``ATTENTIONS``.
        precision: One of ``PRECISIONS``: of the arithmetic (autocast); weights stay as they are.
        weight_bytes: Bytes of each frozen weight that is not quantised.
        quantisation: One of ``QUANTISATIONS`` for the linear modules of the layers, or None.
        checkpointed: Whether layers are computed anew in the backward pass.
        padded: Whether rows of a batch differ in length.
    """

    rows: int
    tokens: int
    head: str = "mean"
    head_parameters: int = 0
    other_parameters: int = 0
    outputs: int = 0
    said_tokens: int = 0
    attention: str = "sdpa"
    precision: str = "float32"
    weight_bytes: int = FULL
    checkpointed: bool = False
    padded: bool = True
    quantisation: str | None = None

    def __post_init__(self) -> None:
        """Refuses what no step is."""
        if self.quantisation is not None:
            require_choice(self.quantisation, "quantisation", QUANTISATIONS)
        require_whole(self.rows, "rows of a batch")
        require_whole(self.tokens, "tokens of a row")
        require_choice(self.head, "head", HEADS)
        require_choice(self.attention, "attention", ATTENTIONS)
        require_choice(self.precision, "precision", PRECISIONS)
        if self.weight_bytes not in (2, 4):
            raise ConfigurationError(f"weight_bytes {self.weight_bytes!r}: expected 2 or 4")


@dataclass(frozen=True, slots=True)
class Peak:
    """The peak by what takes it, in bytes.

    Attributes:
        weights: Frozen weights, with what an adapter keeps beside them.
        trained: Adapters and head.
        gradients: Of what is trained.
        optimizer: Adam's two moments.
        activations: What the backward pass through the layers will read.
        loss: What it will read of head and loss.
        temporaries: Gradients on their way, where they are largest.
    """

    weights: int
    trained: int
    gradients: int
    optimizer: int
    activations: int
    loss: int
    temporaries: int

    @property
    def total(self) -> int:
        """All of it, in bytes."""
        return sum(getattr(self, entry.name) for entry in fields(self))

    @property
    def held(self) -> int:
        """All but temporaries: what ``workers.memory`` measures on a CPU."""
        return self.total - self.temporaries


@dataclass(frozen=True, slots=True)
class _Passed:
    """A layer's pass: bytes of its own, what it shares with others, and what flows out of it."""

    own: int
    shared: dict[str, int]
    gradient: bool


@dataclass(slots=True)
class TrainingMemory:
    """Peaks of one backbone under one workload; layers met before are not computed anew.

    Attributes:
        backbone: The shapes.
        workload: The step.

    Raises:
        BackboneError: If the family is not known.
    """

    backbone: Backbone
    workload: Workload
    _passed: dict[tuple[int, LayerPlan, bool, bool], _Passed] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses families that no pass is known of."""
        traits_of(self.backbone)

    def peak(self, configuration: Configuration) -> Peak:
        """The peak of training ``configuration``; of choosing among its modules, where it does.

        Raises:
            ConfigurationError: If it does not fit the backbone.
        """
        configuration = configuration.supernet
        trained = trainable_parameters(configuration, self.backbone) + self.workload.head_parameters
        everywhere, inside, gradient = self._activations(configuration)
        loss = self._loss(gradient) if trained else 0
        in_layer, at_loss = self._temporaries() if gradient else (0, 0)
        if not self.workload.checkpointed:
            activations, temporaries = everywhere + inside, max(in_layer, at_loss)
        elif inside + in_layer > loss + at_loss:  # head and loss are done with when the layers are computed anew
            activations, loss, temporaries = everywhere + inside, 0, in_layer
        else:
            activations, temporaries = everywhere, at_loss
        return Peak(
            weights=self._weights(configuration),
            trained=FULL * trained,
            gradients=FULL * trained,
            optimizer=2 * FULL * trained,
            activations=activations,
            loss=loss,
            temporaries=temporaries,
        )

    def _weights(self, configuration: Configuration) -> int:
        work = self.workload
        frozen = frozen_bytes(self.backbone, work.weight_bytes, work.quantisation, work.other_parameters)
        return frozen + FULL * _kept_beside(configuration, self.backbone)

    def _activations(self, configuration: Configuration) -> tuple[int, int, bool]:
        """Bytes kept throughout, bytes kept while one layer is at work, and whether a gradient leaves the last.

        Without checkpoints all is kept throughout.
        """
        kept: list[int] = []
        shared: dict[str, int] = {}
        gradient = encoded = False
        for layer, row in enumerate(configuration.layers):
            attends = self._attends_to_encoder(layer)
            if attends and not self._attends_to_encoder(layer - 1):
                encoded, gradient = gradient, False
                self._final_norm(kept, encoded)
            passed = self._pass(layer, row, gradient, encoded and attends)
            gradient = passed.gradient
            kept.append(passed.own)
            shared |= passed.shared
        self._final_norm(kept, gradient)
        if not self.workload.checkpointed:
            return sum(kept) + sum(shared.values()), 0, gradient
        entries = sum(1 for own in kept if own) * self._hidden_bytes
        return entries + sum(shared.values()), max(kept, default=0), gradient

    @property
    def _hidden_bytes(self) -> int:
        work = self.workload
        return work.weight_bytes * work.rows * work.tokens * self.backbone.hidden_size

    def _attends_to_encoder(self, layer: int) -> bool:
        return layer >= 0 and any(module.role == "cross_query" for module in self.backbone.layers[layer])

    def _final_norm(self, kept: list[int], gradient: bool) -> None:
        """Adds what the norm after the last layer keeps, where there is one."""
        traits = traits_of(self.backbone)
        if traits.norms_first and gradient:
            rows = self.workload.rows * self.workload.tokens
            kept.append(FULL * rows * (self.backbone.hidden_size + (1 if traits.rms else 2)))

    def _pass(self, layer: int, row: LayerPlan, gradient: bool, encoded: bool) -> _Passed:
        key = layer, row, gradient, encoded
        if key not in self._passed:
            work = self.workload
            tape = Tape(work.precision == "bfloat16", work.weight_bytes == HALF, work.quantisation)
            batch = Batch(work.rows, work.tokens, work.attention == "eager", work.padded)
            elements = work.rows * work.tokens * self.backbone.hidden_size
            source = Flow("encoded", elements, work.weight_bytes * elements, encoded, work.weight_bytes)
            attended = source if self._attends_to_encoder(layer) else None
            hidden = tape.fresh(elements, gradient, work.weight_bytes)
            output = LayerPass(tape, self.backbone, layer, row, batch).run(hidden, attended)
            shared = {name: size for name, size in tape.kept.items() if isinstance(name, str)}
            self._passed[key] = _Passed(sum(tape.kept.values()) - sum(shared.values()), shared, output.gradient)
        return self._passed[key]

    def _temporaries(self) -> tuple[int, int]:
        """Two gradients of the widest tensor of a layer, three where it is a product with a gate; two of the logits."""
        work, width = self.workload, FULL if self.workload.precision == "float32" else HALF
        gated = any(module.role in ("gate", "gate_up") for module in self.backbone.layers[-1])
        widest = max(self.backbone.intermediate_size, self.backbone.hidden_size)
        inside = (3 if gated else 2) * width * work.rows * work.tokens * widest
        if work.quantisation is not None:  # a packed weight is unpacked for the gradient of its input
            inside += width * max(module.in_features * module.out_features for module in self.backbone.layers[-1])
        said = (work.said_tokens or work.tokens) if work.head == "language" else 0
        return inside, 2 * FULL * work.rows * said * work.outputs

    def _loss(self, gradient: bool) -> int:
        """Bytes kept of head and loss; logarithms of chances are kept, in float32, logits are not."""
        work, hidden = self.workload, self.backbone.hidden_size
        if work.head == "language":
            said = (work.said_tokens or work.tokens) - 1
            return FULL * work.rows * said * work.outputs if gradient else 0
        if work.head == "none":
            return 0
        pooled = work.rows * (hidden + work.outputs)
        if work.head == "stock":
            every_token = self.backbone.family in DECODERS
            return FULL * (pooled + work.rows * hidden * (work.tokens if every_token else 1))
        weights = work.rows * (work.tokens + 1) if gradient else 0
        return FULL * (pooled + weights)


DECODERS = ("llama", "mistral", "qwen2", "qwen3", "gemma", "phi3", "gpt2", "opt")
"""Families whose stock head for classes reads every token before it picks one."""


def training_memory(configuration: Configuration, backbone: Backbone, workload: Workload) -> Peak:
    """The peak of training ``configuration`` once; ``TrainingMemory`` serves many.

    Raises:
        BackboneError: If the backbone's family is not known.
        ConfigurationError: If the configuration does not fit.
    """
    return TrainingMemory(backbone, workload).peak(configuration)


def _kept_beside(configuration: Configuration, backbone: Backbone) -> int:
    """Elements that are neither trained nor of the backbone: starts that are kept, and VeRA's shared projections."""
    count = 0
    projections: dict[tuple[int, int], tuple[int, int]] = {}
    for layer, site, method in configuration.placements():
        if isinstance(method, Lora) and method.init in MOVE_THE_WEIGHT:
            module = backbone.module(layer, site)
            count += method.parameter_count(module) + module.in_features * module.out_features
        elif isinstance(method, Vera):
            module, key = backbone.module(layer, site), (method.rank, method.projection_key)
            widest_in, widest_out = projections.get(key, (0, 0))
            projections[key] = max(widest_in, module.in_features), max(widest_out, module.out_features)
    return count + sum(rank * (ins + outs) for (rank, _), (ins, outs) in projections.items())
