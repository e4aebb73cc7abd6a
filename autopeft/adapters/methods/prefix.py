"""Prefix tuning (arXiv 2101.00190): ``attention(q, [P_k; k], [P_v; v])`` with a length of its own in each layer.

The model's attention function is replaced, through transformers' registry, by one that puts the module's prefix before
its keys and values and widens the mask; the mask function is registered under the same name, or the padding mask would
be None. Modules without a prefix compute what they did. Needs no cache object; keys and values of a prefix carry no
position.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
        self.share = 1.0

    def before(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of shape [rows, heads, tokens, size] with the prefix before them."""
        return self._put(self.key, key), self._put(self.value, value)

    def _put(self, own: Tensor, states: Tensor) -> Tensor:
        rows, heads, _, size = states.shape
        spread = own.view(-1, heads, size).transpose(0, 1).expand(rows, -1, -1, -1)
        return torch.cat([spread.to(states.dtype), states], dim=2)


class SlicedPrefix(nn.Module):
    """The prefixes of several members, each before the keys and values of its own rows.

    Args:
        members: The prefix of each, in the order of their rows; None for none.
    """

    def __init__(self, members: Sequence[Prefix | None]) -> None:
        super().__init__()
        self.members = tuple(members)

    def shares(self, tensor: Tensor | None) -> Sequence[Tensor | None]:
        """The rows of each member; what is the same for all rows goes to each."""
        if tensor is None or tensor.shape[0] == 1:
            return [tensor] * len(self.members)
        return tensor.chunk(len(self.members))


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

    def beside(self) -> list[Tensor]:
        """Nothing."""
        return []

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """Nothing."""

    def merge(self) -> None:
        """Refused: a prefix is no change of a weight."""
        raise NotImplementedError

    @contextmanager
    def suppressed(self, factor: float) -> Iterator[None]:
        """Scales the share of attention that the prefix gets, before shares are made to add up to one."""
        prefix = self.headless.get_submodule(f"{self.path}.prefix")
        prefix.share = factor
        try:
            yield
        finally:
            prefix.share = 1.0

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
    if isinstance(prefix, SlicedPrefix):
        return _attend_by_member(function, module, prefix, query, key, value, mask, **options)
    return _attend_with(prefix, function, module, query, key, value, mask, **options)


def _attend_by_member(
    function: Callable[..., Answer],
    module: nn.Module,
    prefix: SlicedPrefix,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    **options: Any,
) -> Answer:
    shares = [prefix.shares(tensor) for tensor in (query, key, value, mask, options.pop("position_bias", None))]
    answers = []
    for member, *rows, bias in zip(prefix.members, *shares, strict=True):
        own = options if bias is None else {**options, "position_bias": bias}
        answers.append(_attend_with(member, function, module, *rows, **own))
    weights = [weights for _, weights in answers if weights is not None]
    same = len({found.shape[1:] for found in weights}) == 1 and len(weights) == len(answers)
    return torch.cat([answer for answer, _ in answers]), torch.cat(weights) if same else None


def _attend_with(
    prefix: Prefix | None,
    function: Callable[..., Answer],
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    **options: Any,
) -> Answer:
    if prefix is None:
        return function(module, query, key, value, mask, **options)
    length = prefix.key.shape[0]
    # only sdpa leaves the mask out where it can be told "causal"; with a prefix it can not
    if mask is None and query.shape[2] > 1 and _is_causal(module, options):
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device)
        mask = mask.tril(key.shape[2] - query.shape[2])[None, None]
    if prefix.share < 1:
        mask = _widen(_added(mask, query, key), length, _logarithm(prefix.share))
    elif mask is not None:
        mask = _widen(mask, length, True if mask.dtype == torch.bool else 0.0)
    if options.get("position_bias") is not None:
        options["position_bias"] = _widen(options["position_bias"], length, 0.0)
    key, value = prefix.before(key, value)
    return function(module, query, key, value, mask, **options)


def _is_causal(module: nn.Module, options: Mapping[str, Any]) -> bool:
    asked = options.get("is_causal")
    return bool(getattr(module, "is_causal", True) if asked is None else asked)


def _added(mask: Tensor | None, query: Tensor, key: Tensor) -> Tensor:
    """``mask`` as numbers that are added to attention scores."""
    if mask is None:
        return query.new_zeros(1, 1, query.shape[2], key.shape[2])
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=query.dtype, device=mask.device).masked_fill(~mask, -math.inf)


def _logarithm(share: float) -> float:
    return math.log(share) if share > 0 else -math.inf


def _widen(mask: Tensor, length: int, value: float | bool) -> Tensor:
    """``mask`` of shape [rows, heads, queries, keys] with ``length`` columns of ``value`` before it."""
    return torch.cat([mask.new_full((*mask.shape[:-1], length), value), mask], dim=-1)
