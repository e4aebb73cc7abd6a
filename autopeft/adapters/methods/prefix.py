"""Prefix tuning (arXiv 2101.00190): ``attention(q, [P_k; k], [P_v; v])`` with a length of its own in each layer.

The model's attention function is replaced, through transformers' registry, by one that puts the module's prefix before
its keys and values and widens the mask; the mask function is registered under the same name, or the padding mask would
be None. Modules without a prefix compute what they did. Needs no cache object; keys and values of a prefix carry no
position.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from autopeft.errors import BackboneError

_NAME = "autopeft_prefix_"
_KNOWN = ("eager", "sdpa")
_SPREAD = 0.02

Answer = tuple[Tensor, Tensor | None]


class Prefix(nn.Module):
    """Trained keys and values, each of shape [length, key heads × head size].

    Args:
        length: Their number.
        width: Width of all key heads.
        like: A weight whose device they share.
    """

    def __init__(self, length: int, width: int, like: Tensor) -> None:
        super().__init__()
        self.key = nn.Parameter((torch.randn(length, width) * _SPREAD).to(like.device))
        self.value = nn.Parameter((torch.randn(length, width) * _SPREAD).to(like.device))

    def before(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of shape [rows, heads, tokens, size] with the prefix before them."""
        return self._put(self.key, key), self._put(self.value, value)

    def _put(self, own: Tensor, states: Tensor) -> Tensor:
        rows, heads, _, size = states.shape
        spread = own.view(-1, heads, size).transpose(0, 1).expand(rows, -1, -1, -1)
        return torch.cat([spread.to(states.dtype), states], dim=2)


@dataclass(slots=True)
class PrefixPart:
    """The prefix of one layer.

    Attributes:
        headless: The model that it is in.
        path: Dotted name of the attention module in it.
    """

    headless: PreTrainedModel
    path: str

    method_names = ("prefix",)
    mergeable = False

    @classmethod
    def insert(cls, headless: PreTrainedModel, path: str, length: int, width: int) -> PrefixPart:
        """Adds a prefix to the attention module at ``path`` and makes the model use it.

        Raises:
            BackboneError: If the model's attention cannot be replaced.
        """
        use_prefixes(headless)
        attention = headless.get_submodule(path)
        attention.add_module("prefix", Prefix(length, width, next(attention.parameters())))
        return cls(headless, path)

    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by its name in the headless model."""
        prefix = self.headless.get_submodule(f"{self.path}.prefix")
        return {f"{self.path}.prefix.{name}": parameter for name, parameter in prefix.named_parameters()}

    def kept(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """Nothing."""

    def merge(self) -> None:
        """Refused: a prefix is no change of a weight."""
        raise NotImplementedError

    def take_out(self) -> None:
        """Takes the prefix off and gives the model its own attention function back."""
        del self.headless.get_submodule(self.path).prefix
        implementation = self.headless.config._attn_implementation
        if implementation.startswith(_NAME):
            self.headless.set_attn_implementation(implementation.removeprefix(_NAME))


def use_prefixes(model: PreTrainedModel) -> None:
    """Makes ``model`` compute its attention with the prefixes that its modules have.

    Raises:
        BackboneError: If its family does not go through transformers' registry, or its function is not known here.
    """
    implementation = model.config._attn_implementation
    if implementation.startswith(_NAME):
        return
    family = model.config.model_type
    if not has_interface(model):
        raise BackboneError(f"prefix on {family}: {NO_INTERFACE}")
    if implementation not in _KNOWN:
        raise BackboneError(
            f"prefix on {family}: its attention runs as {implementation!r}; load it with attn_implementation='sdpa'"
        )
    name = _NAME + implementation
    masks = AttentionMaskInterface()
    AttentionInterface.register(name, _attend_eager if implementation == "eager" else _attend_sdpa)
    AttentionMaskInterface.register(name, masks[implementation])
    model.set_attn_implementation(name)


NO_INTERFACE = "its attention does not go through transformers' AttentionInterface, so no keys can be put before it"


def has_interface(model: PreTrainedModel) -> bool:
    """Whether the attention of ``model`` goes through transformers' registry."""
    return hasattr(sys.modules[type(model).__module__], "ALL_ATTENTION_FUNCTIONS")


def _attend_sdpa(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Answer:
    return _attend(AttentionInterface()["sdpa"], module, query, key, value, mask, **options)


def _attend_eager(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Answer:
    function = sys.modules[type(module).__module__].eager_attention_forward
    return _attend(function, module, query, key, value, mask, **options)


def _attend(
    function: Callable[..., Answer],
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    **options: Any,
) -> Answer:
    prefix = getattr(module, "prefix", None)
    if prefix is None:
        return function(module, query, key, value, mask, **options)
    length = prefix.key.shape[0]
    # only sdpa leaves the mask out where it can be told "causal"; with a prefix it can not
    if mask is None and query.shape[2] > 1 and _is_causal(module, options):
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device)
        mask = mask.tril(key.shape[2] - query.shape[2])[None, None]
    if mask is not None:
        mask = _widen(mask, length, True if mask.dtype == torch.bool else 0.0)
    if options.get("position_bias") is not None:
        options["position_bias"] = _widen(options["position_bias"], length, 0.0)
    key, value = prefix.before(key, value)
    return function(module, query, key, value, mask, **options)


def _is_causal(module: nn.Module, options: Mapping[str, Any]) -> bool:
    asked = options.get("is_causal")
    return bool(getattr(module, "is_causal", True) if asked is None else asked)


def _widen(mask: Tensor, length: int, value: float | bool) -> Tensor:
    """``mask`` of shape [rows, heads, queries, keys] with ``length`` columns of ``value`` before it."""
    return torch.cat([mask.new_full((*mask.shape[:-1], length), value), mask], dim=-1)
