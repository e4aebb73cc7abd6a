"""The layers of each family as operations on a tape: what a forward pass through one keeps for the backward pass.

One function a sublayer; a family is a row in ``TRAITS``. Nothing here knows of heads, weights or optimisers
(``search_spaces.memory``). Where a family's checkpoints differ in their activation function, the usual one is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces.backbone import Backbone, ModuleShape
from search_spaces.configuration import LayerPlan
from search_spaces.errors import BackboneError
from search_spaces.methods import LayerMethod, ModuleMethod
from search_spaces.methods.norm import Norm
from search_spaces.methods.prefix import Prefix
from search_spaces.tape import HALF, Flow, Tape


@dataclass(frozen=True, slots=True)
class Traits:
    """What the shapes of a family do not say.

    Attributes:
        norms_first: Whether norms stand before the sublayers, and one after the last layer.
        rms: Whether they are RMSNorms.
        activation: As ``Tape.activation`` names it.
        rotary: Whether queries and keys are turned by their position.
        head_norms: Whether queries and keys have norms of their own.
        disentangled: Whether attention is DeBERTa's.
        biased: Whether attention adds a bias for each head, as T5's.
        masked: Whether attention ever gets a mask.
    """

    norms_first: bool = True
    rms: bool = False
    activation: str = "one operation"
    rotary: bool = False
    head_norms: bool = False
    disentangled: bool = False
    biased: bool = False
    masked: bool = True


_BERT = Traits(norms_first=False)
_LLAMA = Traits(rms=True, rotary=True)
TRAITS = {
    **dict.fromkeys(("bert", "roberta", "distilbert", "electra"), _BERT),
    "deberta-v2": Traits(norms_first=False, disentangled=True),
    "modernbert": Traits(rotary=True),
    **dict.fromkeys(("llama", "mistral", "qwen2", "gemma", "phi3"), _LLAMA),
    "qwen3": Traits(rms=True, rotary=True, head_norms=True),
    "gpt2": Traits(activation="gelu_new"),
    "opt": Traits(activation="relu"),
    "t5": Traits(rms=True, activation="gelu_new", biased=True),
    "vit": Traits(masked=False),
}
"""Every family by the model type that transformers gives it."""


def traits_of(backbone: Backbone) -> Traits:
    """The traits of the family of ``backbone``.

    Raises:
        BackboneError: If it is not known.
    """
    if backbone.family not in TRAITS:
        raise BackboneError(
            f"training memory of {backbone.name}: family {backbone.family!r} is not known; known: {', '.join(TRAITS)}"
        )
    return TRAITS[backbone.family]


@dataclass(frozen=True, slots=True)
class Batch:
    """What a pass reads.

    Attributes:
        rows: Number of them.
        tokens: Of each row, padding included.
        eager: Whether attention computes its matrices one by one; else in one operation (SDPA).
        padded: Whether any row is shorter than the longest, so that there is a mask.
    """

    rows: int
    tokens: int
    eager: bool = False
    padded: bool = True


@dataclass(frozen=True, slots=True)
class LayerPass:
    """One layer with what the plan puts into it.

    Attributes:
        tape: Where what is kept is noted.
        backbone: The shapes.
        layer: Which of its layers.
        row: What stands in it.
        batch: What it reads.
    """

    tape: Tape
    backbone: Backbone
    layer: int
    row: LayerPlan
    batch: Batch

    @property
    def _traits(self) -> Traits:
        return traits_of(self.backbone)

    def run(self, hidden: Flow, encoded: Flow | None = None) -> Flow:
        """The hidden states after the layer.

        Args:
            hidden: Those before it.
            encoded: Last hidden states of the encoder, for a layer that attends to them.
        """
        if self._traits.norms_first:
            # ModernBERT's first layer has a single norm: its embeddings are normed already
            bare = len(self.backbone.norms[self.layer]) == 1
            normed = hidden if bare else self._norm(hidden)
            hidden = self.tape.add(hidden, self._attention(normed, normed, ""))
            if encoded is not None:
                hidden = self.tape.add(hidden, self._attention(self._norm(hidden), encoded, "cross_"))
            return self.tape.add(hidden, self._feed_forward(self._norm(hidden)))
        hidden = self._norm(self.tape.add(hidden, self._attention(hidden, hidden, "")))
        return self._norm(self.tape.add(hidden, self._feed_forward(hidden)))

    def _module(self, role: str) -> ModuleShape | None:
        return next((module for module in self.backbone.layers[self.layer] if module.role == role), None)

    def _linear(self, flow: Flow, role: str) -> Flow:
        methods = [p.method for p in self.row.placements if p.site == role and isinstance(p.method, ModuleMethod)]
        return self.tape.linear(flow, self.backbone.module(self.layer, role), methods)

    def _norm(self, flow: Flow, width: int = 0) -> Flow:
        trained = any(isinstance(placement.method, Norm) for placement in self.row.placements)
        norm = self.tape.rms_norm if self._traits.rms else self.tape.layer_norm
        return norm(flow, width or self.backbone.hidden_size, trained=trained)

    def _feed_forward(self, flow: Flow) -> Flow:
        tape, kind = self.tape, self._traits.activation
        if self._module("gate_up") is not None:
            both = self._linear(flow, "gate_up")
            half = tape.part(both, both.elements // 2)
            inner = tape.multiply(tape.activation(half, kind), half)
        elif self._module("gate") is not None:
            inner = tape.multiply(tape.activation(self._linear(flow, "gate"), kind), self._linear(flow, "up"))
        else:
            # T5 has this activation where it has a gate, else relu
            kind = "relu" if self.backbone.family == "t5" else kind
            inner = tape.activation(self._linear(flow, "up"), kind)
        output = self._linear(inner, "down")
        for placement in self.row.placements:
            if placement.site == "feed_forward" and isinstance(placement.method, LayerMethod):
                output = self._bottleneck(
                    output, output if placement.method.name == "serial" else flow, placement.method
                )
        return output

    def _bottleneck(self, output: Flow, source: Flow, method: LayerMethod) -> Flow:
        kept = method.kept(self.backbone.layer_shape(self.layer, "feed_forward"))
        tape, tokens = self.tape, source.elements // self.backbone.hidden_size
        # it computes in its own float32, so under autocast it reads a copy
        tape.keep(tape.fresh(source.elements, False, HALF) if tape.autocast else source)
        tape.keep(tape.product(kept.per_token * tokens, False))
        return tape.add(output, tape.product(output.elements, True))

    def _attention(self, flow: Flow, source: Flow, kind: str) -> Flow:
        """Attention from ``flow`` to ``source``; ``kind`` stands before the roles of its modules."""
        query, key, value = self._projected(flow, source, kind)
        if self._traits.disentangled:
            return self._linear(self._disentangled(query, key, value), "output")
        if self._traits.head_norms:
            query, key = (self._norm(part, self.backbone.head_size) for part in (query, key))
        if self._traits.rotary:
            query, key = self._rotated(query, key)
        queries = self.batch.tokens
        keys = source.elements // self.backbone.hidden_size // self.batch.rows
        length = sum(p.method.length for p in self.row.placements if isinstance(p.method, Prefix)) if not kind else 0
        if length:
            rows, width = self.batch.rows, self.backbone.layer_shape(self.layer, "attention").key_value_width
            added = rows * length * width
            key, value = (self.tape.fresh(part.elements + added, True, part.width) for part in (key, value))
        attend = self._in_single_operations if self.batch.eager else self._in_one_operation
        return self._linear(attend(query, key, value, queries, keys + length), f"{kind}output")

    def _projected(self, flow: Flow, source: Flow, kind: str) -> tuple[Flow, Flow, Flow]:
        if kind or self._module("qkv") is None:
            query = self._linear(flow, f"{kind}query")
            return query, self._linear(source, f"{kind}key"), self._linear(source, f"{kind}value")
        fused = self._linear(flow, "qkv")
        shape = self.backbone.layer_shape(self.layer, "attention")
        tokens = self.batch.rows * self.batch.tokens
        query, key = (self.tape.part(fused, tokens * width) for width in (shape.attention_width, shape.key_value_width))
        return query, key, key

    def _rotated(self, query: Flow, key: Flow) -> tuple[Flow, Flow]:
        if query.gradient or key.gradient:
            elements = self.batch.tokens * self.backbone.head_size
            self.tape.keep(*(Flow(name, elements, 4 * elements, False) for name in ("cosine", "sine")))
        return self.tape.fresh(query.elements, query.gradient), self.tape.fresh(key.elements, key.gradient)

    def _in_one_operation(self, query: Flow, key: Flow, value: Flow, queries: int, keys: int) -> Flow:
        tape = self.tape
        flowing = query.gradient or key.gradient or value.gradient
        output = tape.product(query.elements, flowing)
        if flowing:
            heads, shared = self.backbone.head_count, self.backbone.key_value_head_count
            sums = tape.fresh(self.batch.rows * heads * queries, False)
            if 1 < shared < heads and self.batch.padded:  # with a mask, heads that are shared are repeated; one is not
                repeated = self.batch.rows * keys * heads * self.backbone.head_size
                key, value = (tape.product(repeated, part.gradient) for part in (key, value))
            tape.keep(tape.operand(query), tape.operand(key), tape.operand(value), output, sums)
            self._keep_mask(queries, keys)
        return output

    def _keep_mask(self, queries: int, keys: int) -> None:
        """The mask, of which each layer's attention makes its own copy in floating point."""
        traits, rows = self._traits, self.batch.rows if self.batch.padded else 1
        if traits.biased:
            elements = rows * self.backbone.head_count * queries * keys
        elif traits.masked and self.batch.padded:
            elements = rows * queries * keys
        else:
            return
        self.tape.keep(self.tape.product(elements, False))

    def _in_single_operations(self, query: Flow, key: Flow, value: Flow, queries: int, keys: int) -> Flow:
        tape, rows, heads = self.tape, self.batch.rows, self.backbone.head_count
        spread = rows * keys * heads * self.backbone.head_size
        flowing = query.gradient or key.gradient
        if query.gradient:
            tape.keep(tape.product(spread, False))
        if key.gradient:
            tape.keep(tape.product(query.elements, False))
        chances = tape.fresh(rows * heads * queries * keys, flowing)
        if flowing:
            tape.keep(chances)
            tape.keep(tape.product(spread, False))
        if value.gradient:
            tape.keep(tape.operand(chances))
        return tape.product(query.elements, flowing or value.gradient)

    def _disentangled(self, query: Flow, key: Flow, value: Flow) -> Flow:
        """DeBERTa's: contents to contents, contents to positions, positions to contents."""
        tape, rows, heads = self.tape, self.batch.rows, self.backbone.head_count
        tokens, width = self.batch.tokens, heads * self.backbone.head_size
        positions = self.backbone.relative_positions
        for role in ("query", "key"):
            if self.backbone.tokens_beside(role):
                projected = self._linear(tape.fresh(positions * self.backbone.hidden_size, False), role)
                if projected.gradient and role == "query":  # scaled keys are kept for the queries of tokens
                    tape.keep(tape.product(key.elements, False))
        flowing = query.gradient or key.gradient
        for one, other in ((query, key), (key, query)):
            if one.gradient:
                tape.keep(tape.product(other.elements, False), tape.product(rows * positions * width, False))
                tape.keep(tape.fresh(rows * heads * tokens * positions, False))
        if flowing:
            tape.keep(Flow("relative positions", tokens * tokens, 8 * tokens * tokens, False))
            tape.keep(tape.fresh(rows * tokens * tokens, False, 1))
            tape.keep(tape.product(value.elements, False))
        chances = tape.fresh(rows * heads * tokens * tokens, flowing)
        if flowing or value.gradient:
            tape.keep(chances)
        return tape.product(query.elements, flowing or value.gradient)
