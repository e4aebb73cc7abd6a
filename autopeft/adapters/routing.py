"""How tokens find their experts: weights from router probabilities, and the losses that keep routers healthy.

MoLA (arXiv 2402.08562): softmax, the best K, renormalised; load balance of Switch (arXiv 2101.03961). DynMoLE (arXiv
2504.00661): best experts up to a probability, all where the Tsallis entropy is high, not renormalised; load balance and
entropy in the loss. Functions of tensors only; the modules are ``autopeft.adapters.methods.mola``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from search_spaces.routers import Dynmole, Router

_SMALLEST = 1e-9
"""Probabilities are clamped to this where their logarithm or power is taken; adding to them would shift the entropy."""


@dataclass(frozen=True, slots=True)
class Routed:
    """What a router made of a batch.

    Attributes:
        probabilities: Shape [..., experts]: the softmax over all experts.
        weights: Same shape: what each expert counts for; 0 for those not chosen.
    """

    probabilities: Tensor
    weights: Tensor


def route(logits: Tensor, router: Router) -> Routed:
    """Probabilities and weights of the experts, in float32.

    Args:
        logits: Shape [..., experts].
        router: Which experts stay.
    """
    probabilities = torch.softmax(logits.float(), dim=-1)
    if isinstance(router, Dynmole):
        return Routed(probabilities, probabilities * _dynamic_choice(probabilities.detach(), router))
    best, which = probabilities.topk(min(router.top_k, probabilities.shape[-1]), dim=-1)
    shares = best / best.sum(dim=-1, keepdim=True)
    return Routed(probabilities, torch.zeros_like(probabilities).scatter(-1, which, shares))


def _dynamic_choice(probabilities: Tensor, router: Dynmole) -> Tensor:
    """1 for the experts of each token that are kept and 0 for the others, shape [..., experts]."""
    ordered, which = probabilities.sort(dim=-1, descending=True)
    kept = ordered.cumsum(dim=-1) <= router.top_p
    kept[..., : router.keep_top_k] = True
    choice = torch.zeros_like(probabilities).scatter(-1, which, kept.to(probabilities.dtype))
    if router.threshold < 1:
        undecided = tsallis_entropy(probabilities, router.index) > router.threshold
        choice = torch.where(undecided.unsqueeze(-1), 1.0, choice)
    return choice


def tsallis_entropy(probabilities: Tensor, index: float) -> Tensor:
    """Tsallis entropy over the last axis as a share of its maximum, in [0, 1], shape [...]; Shannon's for index 1."""
    experts = probabilities.shape[-1]
    clamped = probabilities.clamp(min=_SMALLEST)
    if index == 1:
        return -(clamped * clamped.log()).sum(dim=-1) / math.log(experts)
    most = (1 - float(experts) ** (1 - index)) / (index - 1)
    entropy: Tensor = (1 - clamped.pow(index).sum(dim=-1)) / (index - 1) / most
    return entropy


def mean_over(values: Tensor, counted: Tensor | None) -> Tensor:
    """Mean over all axes but the last, shape [experts].

    Args:
        values: Shape [..., experts].
        counted: Shape [...], 1 for tokens that count; None for all.
    """
    flat = values.reshape(-1, values.shape[-1])
    if counted is None:
        return flat.mean(dim=0)
    weights = counted.reshape(-1).to(flat.dtype)
    return weights @ flat / weights.sum().clamp(min=1)


def auxiliary_loss(routed: list[tuple[Routed, Tensor | None]], router: Router) -> Tensor:
    """The router's losses, weighted, over the modules of one layer, which count alike; a scalar.

    Load balance is ``experts Σ_e f_e P_e``: f the share of the choices that fall on an expert (DynMoLE: its mean
    weight), P its mean probability; 1 where both are even.

    Args:
        routed: What the routers of modules with as many experts did, and which tokens count.
        router: Of them all.
    """
    chances = torch.stack([mean_over(one.probabilities, counted) for one, counted in routed]).mean(dim=0)
    if isinstance(router, Dynmole):
        falls = torch.stack([mean_over(one.weights, counted) for one, counted in routed]).mean(dim=0)
    else:
        chosen = [mean_over((one.weights > 0).float(), counted) for one, counted in routed]
        falls = torch.stack(chosen).mean(dim=0) / router.top_k
    loss = router.balance * len(chances) * (falls * chances).sum()
    if isinstance(router, Dynmole):
        entropies = [tsallis_entropy(one.probabilities, router.index).unsqueeze(-1) for one, _ in routed]
        means = [mean_over(one, counted) for one, (_, counted) in zip(entropies, routed, strict=True)]
        loss = loss + router.entropy * torch.cat(means).mean()
    return loss


def update_distance(low: Tensor, high: Tensor) -> Tensor:
    """Mean Frobenius norm of the differences between the updates B_e A_e of any two experts; a scalar, float64.

    From inner products of the factors, so that no update is ever formed: <B_i A_i, B_j A_j> is the sum of
    ``(B_iᵀ B_j) ∘ (A_i A_jᵀ)``.

    Args:
        low: All A, shape [experts, rank, in].
        high: All B, shape [experts, out, rank].
    """
    low, high = low.detach().double(), high.detach().double()
    products = torch.einsum("ior,jos->ijrs", high, high) * torch.einsum("ird,jsd->ijrs", low, low)
    inner = products.sum(dim=(-2, -1))
    norms = inner.diagonal()
    distances = (norms[:, None] + norms[None, :] - 2 * inner).clamp(min=0).sqrt()
    experts = len(norms)
    return distances.sum() / (experts * (experts - 1))
