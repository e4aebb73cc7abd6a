"""What autograd keeps of a forward pass, operation by operation, in bytes: the rules of torch, without torch.

An operation keeps what its backward pass will read: a product keeps a factor only where a gradient goes to the other
one, so a frozen weight makes its module keep nothing, while a trained factor keeps the module's input. One storage is
kept once, however often. Under bfloat16 autocast products read and keep copies of half the width, the frozen weight's
too. Values are never computed; ``search_spaces.passes`` says which operations a layer consists of.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from search_spaces.backbone import ModuleShape
from search_spaces.errors import ConfigurationError
from search_spaces.methods import ModuleMethod

FULL, HALF = 4, 2
"""Bytes of an element in float32 and in bfloat16."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A tensor of the pass.

    Attributes:
        storage: What memory it lies in: a number, or a name where layers share it.
        elements: Of the tensor.
        kept_bytes: Of its whole storage, which is larger where the tensor is a part of another.
        gradient: Whether a gradient goes to it.
        width: Bytes of an element.
    """

    storage: int | str
    elements: int
    kept_bytes: int
    gradient: bool
    width: int = FULL


@dataclass(slots=True)
class Tape:
    """Notes what is kept.

    Attributes:
        autocast: Whether products are computed in bfloat16.
        half_weights: Whether frozen weights are in bfloat16 already, so that no copy of them is made for a product.
        quantisation: How frozen weights are packed, or None; packed ones are unpacked anew in each pass.
        kept: Bytes by storage.
    """

    autocast: bool = False
    half_weights: bool = False
    quantisation: str | None = None
    kept: dict[int | str, int] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def fresh(self, elements: int, gradient: bool, width: int = FULL) -> Flow:
        """A tensor in memory of its own."""
        return Flow(next(self._numbers), elements, elements * width, gradient, width)

    def keep(self, *flows: Flow) -> None:
        """Notes that these are kept."""
        for flow in flows:
            self.kept[flow.storage] = flow.kept_bytes

    def part(self, flow: Flow, elements: int) -> Flow:
        """``elements`` of a tensor, in its memory."""
        return replace(flow, elements=elements)

    def operand(self, flow: Flow) -> Flow:
        """What a product reads of a tensor: itself, or its copy in bfloat16."""
        if not self.autocast or flow.width == HALF:
            return flow
        return self.fresh(flow.elements, flow.gradient, HALF)

    def product(self, elements: int, gradient: bool) -> Flow:
        """The result of a product."""
        return self.fresh(elements, gradient, HALF if self.autocast else FULL)

    def add(self, first: Flow, second: Flow) -> Flow:
        """A sum, which keeps nothing."""
        return self.fresh(first.elements, first.gradient or second.gradient, max(first.width, second.width))

    def multiply(self, first: Flow, second: Flow) -> Flow:
        """A product element by element."""
        if second.gradient:
            self.keep(first)
        if first.gradient:
            self.keep(second)
        return self.fresh(first.elements, first.gradient or second.gradient, max(first.width, second.width))

    def linear(self, flow: Flow, module: ModuleShape, methods: Sequence[ModuleMethod] = ()) -> Flow:
        """A frozen linear module with what stands at it."""
        tokens = flow.elements // module.in_features
        held = [method.kept(module) for method in methods]
        for kept in held:
            if kept.input:
                copies = [self.fresh(flow.elements, False, HALF) for _ in range(kept.reads)]
                self.keep(*(copies if self.autocast else [flow]))
            elements = kept.fixed + kept.per_token * tokens + (kept.fixed_where_flowing if flow.gradient else 0)
            elements += module.in_features * module.out_features if kept.reads_weight and self.quantisation else 0
            self.keep(self.product(elements, False), self.fresh(kept.per_token_wide * tokens, False))
        copied = self.autocast and not self.half_weights and self.quantisation is None
        if self.quantisation == "8bit" and flow.gradient:  # bitsandbytes keeps what it has rounded
            self.keep(flow)
        if copied and (flow.gradient or any(kept.through_weight for kept in held)):
            self.keep(self.fresh(module.in_features * module.out_features, False, HALF))
        flowing = flow.gradient or bool(methods)
        if any(kept.wide_result for kept in held):
            return self.fresh(tokens * module.out_features, flowing)
        return self.product(tokens * module.out_features, flowing)

    def layer_norm(self, flow: Flow, width: int, *, trained: bool) -> Flow:
        """LayerNorm: keeps its input, and mean and spread of each row of it."""
        if flow.gradient or trained:
            self.keep(flow, self.fresh(2 * flow.elements // width, False))
        return self.fresh(flow.elements, flow.gradient or trained, flow.width)

    def rms_norm(self, flow: Flow, width: int, *, trained: bool) -> Flow:
        """RMSNorm in single operations: keeps its input in float32, a factor for each row, the quotient if trained."""
        if flow.gradient:
            wide = flow if flow.width == FULL else self.fresh(flow.elements, True)
            self.keep(wide, self.fresh(flow.elements // width, False))
        if trained:
            self.keep(self.fresh(flow.elements, False, flow.width))
        return self.fresh(flow.elements, flow.gradient or trained, flow.width)

    def activation(self, flow: Flow, kind: str) -> Flow:
        """An activation function.

        Args:
            flow: Its input.
            kind: ``one operation`` (GELU, SiLU: keeps the input), ``relu`` (keeps the output), or ``gelu_new``, which
                is written in single operations.

        Raises:
            ConfigurationError: If the kind is not known.
        """
        output = self.fresh(flow.elements, flow.gradient, flow.width)
        if not flow.gradient:
            return output
        if kind == "relu":
            self.keep(output)
        elif kind == "one operation":
            self.keep(flow)
        elif kind == "gelu_new":
            self.keep(flow, *(self.fresh(flow.elements, False, flow.width) for _ in range(3)))
        else:
            raise ConfigurationError(f"activation {kind!r}: expected one operation, relu or gelu_new")
        return output
