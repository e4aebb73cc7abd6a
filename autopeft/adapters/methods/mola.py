"""MoLA and DynMoLE (arXiv 2402.08562, 2504.00661): ``h = W0 x + s Σ g_e(x) B_e A_e x`` at linear modules.

All A of a module lie in one matrix and all B in another, so that any number of experts is two products with the routing
weights folded in between; every expert is computed for every token. The experts hang on the frozen module, whose
output a hook adds to, so that its weight's layout does not matter. A is Kaiming-uniform, B zero, as LoRA's; the router,
too, is Kaiming-uniform. No dropout.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from autopeft.adapters.packing import counted_tokens
from autopeft.adapters.routing import Routed, auxiliary_loss, route
from autopeft.adapters.suppression import moved
from search_spaces.backbone import ModuleShape
from search_spaces.methods.mola import Mola

_MASKS = ("attention_mask", "decoder_attention_mask")


class Experts(nn.Module):
    """``s Σ g_e(x) B_e A_e x``.

    Args:
        method: Sizes.
        module: Widths.
        like: A weight whose device the new ones share.
    """

    def __init__(self, method: Mola, module: ModuleShape, like: Tensor) -> None:
        super().__init__()
        self.method = method
        self.scaling = method.alpha / (math.sqrt(method.rank) if method.scaling == "rank-stabilised" else method.rank)
        width = method.experts * method.rank
        self.lora_A = nn.Parameter(torch.empty(width, module.in_features))
        self.lora_B = nn.Parameter(torch.zeros(module.out_features, width))
        self.router = nn.Parameter(torch.empty(method.experts, module.in_features))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        nn.init.kaiming_uniform_(self.router, a=math.sqrt(5))
        self.to(like.device)
        self.routed: Routed | None = None

    def forward(self, hidden: Tensor) -> Tensor:
        """What is added, in the type of ``hidden``; what the router did stays in ``routed``."""
        states = hidden.to(self.lora_A.dtype)
        self.routed = route(nn.functional.linear(states, self.router), self.method.router)
        inner = nn.functional.linear(states, self.lora_A)
        weights = self.routed.weights.to(inner.dtype).unsqueeze(-1)
        apart = inner.view(*inner.shape[:-1], self.method.experts, self.method.rank)
        inner = (apart * weights).flatten(-2)
        added: Tensor = nn.functional.linear(inner, self.lora_B) * self.scaling
        return added.to(hidden.dtype)

    def factors(self) -> tuple[Tensor, Tensor]:
        """All A, shape [experts, rank, in], and all B, shape [experts, out, rank]."""
        experts, rank = self.method.experts, self.method.rank
        return self.lora_A.view(experts, rank, -1), self.lora_B.view(-1, experts, rank).transpose(0, 1)

    def __getstate__(self) -> dict[str, Any]:
        """Without what the router did: it belongs to a batch, and its graph cannot be copied."""
        return {**self.__dict__, "routed": None}


@dataclass(slots=True)
class MolaPart:
    """The experts of one layer.

    Attributes:
        headless: The model that they are in.
        path: Dotted name of the layer in it.
        experts: By the dotted name of the module that they are at.
    """

    headless: PreTrainedModel
    path: str
    experts: dict[str, Experts] = field(default_factory=dict)
    _mask_names: dict[str, str] = field(default_factory=dict)
    _masks: dict[str, Tensor | None] = field(default_factory=dict)
    _handles: list[RemovableHandle] = field(default_factory=list)

    method_names = ("mola",)
    mergeable = False

    @classmethod
    def insert(cls, headless: PreTrainedModel, path: str, methods: Mapping[ModuleShape, Mola]) -> MolaPart:
        """Adds experts to the modules of the layer at ``path``."""
        part = cls(headless, path)
        part._handles.append(headless.register_forward_pre_hook(part._note_masks, with_kwargs=True))
        for shape, method in methods.items():
            module = _linear(headless, shape.path)
            experts = Experts(method, shape, next(module.parameters()))
            module.add_module("mola", experts)
            part.experts[shape.path] = experts
            part._mask_names[shape.path] = _mask_name(headless, shape)
            part._handles.append(module.register_forward_hook(_add))
        return part

    def _note_masks(self, headless: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        given = dict(zip(inspect.signature(headless.forward).parameters, inputs, strict=False)) | dict(named)
        self._masks = {name: given.get(name) for name in _MASKS}
        if given.get("attention_mask") is None and given.get("position_ids") is not None:
            self._masks["attention_mask"] = counted_tokens(given["position_ids"])

    def last(self, path: str) -> tuple[Routed, Tensor | None]:
        """What the router of the module at ``path`` last did, and which tokens were no padding; None if all.

        Raises:
            RuntimeError: If it has seen none.
        """
        routed = self.experts[path].routed
        if routed is None:
            raise RuntimeError(f"the router at {path} has seen no batch: call the model first")
        mask = self._masks.get(self._mask_names[path])
        tokens = routed.weights[..., 0].numel()
        fits = mask is not None and mask.dim() == 2 and mask.numel() == tokens
        return routed, mask.to(routed.weights.device) if mask is not None and fits else None

    def auxiliary_loss(self) -> Tensor:
        """What the routers add to the loss of the batch that they have just seen; modules with other sizes apart.

        Raises:
            RuntimeError: If they have seen none.
        """
        groups: dict[tuple[Any, ...], list[tuple[Routed, Tensor | None]]] = {}
        for path, experts in self.experts.items():
            key = experts.method.experts, experts.method.router
            groups.setdefault(key, []).append(self.last(path))
        return torch.stack([auxiliary_loss(routed, router) for (_, router), routed in groups.items()]).sum()

    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by its name in the headless model."""
        return {
            f"{path}.mola.{name}": parameter
            for path, experts in self.experts.items()
            for name, parameter in experts.named_parameters()
        }

    def kept(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def beside(self) -> list[Tensor]:
        """Nothing."""
        return []

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """Nothing."""

    def suppressed(self, factor: float) -> AbstractContextManager[None]:
        """Scales what the experts add; the routers go on as they do."""
        return moved(((experts.lora_B, 0.0) for experts in self.experts.values()), factor)

    def merge(self) -> None:
        """Refused: what is added depends on the token."""
        raise NotImplementedError

    def take_out(self) -> None:
        """Takes experts and hooks off."""
        for handle in self._handles:
            handle.remove()
        for path in self.experts:
            del _linear(self.headless, path).mola


def _add(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    added: Tensor = output + module.get_submodule("mola")(inputs[0])
    return added


def _mask_name(headless: PreTrainedModel, shape: ModuleShape) -> str:
    """The argument of the model that says which tokens of the module are padding."""
    of_decoder = headless.config.is_encoder_decoder and shape.path.startswith("decoder.")
    return _MASKS[of_decoder and shape.role not in ("cross_key", "cross_value")]


def _linear(headless: nn.Module, path: str) -> nn.Module:
    module = headless.get_submodule(path)
    linear: nn.Module = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    return linear
