"""Routers against values by hand: MoLA's choice and balance, DynMoLE's entropy, choice and losses."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autopeft.adapters.routing import Routed, auxiliary_loss, route, tsallis_entropy, update_distance
from search_spaces.routers import Dynmole, TopK

SKEWED = torch.tensor([0.5, 0.3, 0.1, 0.05, 0.03, 0.02])


def logits_of(probabilities):
    return torch.as_tensor(probabilities).log()


def random_logits(tokens=64, experts=6, spread=3.0):
    return torch.randn(tokens, experts, generator=torch.Generator().manual_seed(4)) * spread


def active(routed):
    return (routed.weights > 0).sum(-1)


@pytest.mark.parametrize("top_k", [1, 2, 3, 6])
def test_exactly_k_experts_are_kept_and_their_weights_add_up_to_one(top_k):
    routed = route(random_logits(), TopK(top_k))
    assert (active(routed) == top_k).all()
    assert torch.allclose(routed.weights.sum(-1), torch.ones(64), atol=1e-6)
    assert torch.allclose(routed.probabilities.sum(-1), torch.ones(64), atol=1e-6)


def test_the_best_two_of_a_token_are_weighed_as_by_hand():
    routed = route(logits_of(SKEWED), TopK(2))
    assert routed.weights.tolist() == pytest.approx([0.625, 0.375, 0, 0, 0, 0], abs=1e-6)


def test_balance_is_one_where_probabilities_and_choices_are_even():
    pairs = list(itertools.combinations(range(4), 2))
    weights = torch.zeros(len(pairs), 4)
    for token, pair in enumerate(pairs):
        weights[token, list(pair)] = 0.5
    even = Routed(torch.full((len(pairs), 4), 0.25), weights)
    assert auxiliary_loss([(even, None)], TopK(2, balance=1.0)).item() == pytest.approx(1.0, abs=1e-6)


def test_balance_is_highest_where_all_tokens_go_to_one_expert():
    one = route(torch.tensor([[20.0, 0.0, 0.0, 0.0]] * 8), TopK(1))
    assert auxiliary_loss([(one, None)], TopK(1, balance=1.0)).item() == pytest.approx(4.0, abs=1e-4)
    assert auxiliary_loss([(one, None)], TopK(1)).item() == pytest.approx(4e-3, abs=1e-6)


def test_balance_over_two_modules_is_that_of_all_their_tokens_together():
    first, second = (route(random_logits(12, 4, spread), TopK(2)) for spread in (1.0, 3.0))
    joined = Routed(torch.cat([first.probabilities, second.probabilities]), torch.cat([first.weights, second.weights]))
    apart = auxiliary_loss([(first, None), (second, None)], TopK(2))
    assert apart.item() == pytest.approx(auxiliary_loss([(joined, None)], TopK(2)).item(), rel=1e-5)


@pytest.mark.parametrize("router", [TopK(2, 1.0), Dynmole(balance=1.0, entropy=1.0)])
def test_padding_changes_no_loss(router):
    logits = random_logits(20, 4).view(2, 10, 4)
    mask = torch.ones(2, 10, dtype=torch.long)
    mask[1, 6:] = 0
    alone = auxiliary_loss([(route(logits, router), mask)], router)
    logits[1, 6:] = torch.tensor([9.0, -9.0, 0.0, 0.0])
    padded = route(logits, router)
    assert auxiliary_loss([(padded, mask)], router).item() == pytest.approx(alone.item(), rel=1e-6)
    assert auxiliary_loss([(padded, None)], router).item() != pytest.approx(alone.item(), rel=1e-2)


@pytest.mark.parametrize("index", [0.5, 1, 1.1, 1.5, 2.0])
def test_an_even_router_has_entropy_one_and_keeps_all_experts(index):
    even = torch.zeros(5, 6)
    routed = route(even, Dynmole(index=index))
    assert tsallis_entropy(routed.probabilities, index).tolist() == pytest.approx([1.0] * 5, abs=1e-3)
    assert (active(routed) == 6).all()


@pytest.mark.parametrize("index", [1, 1.1, 2.0])
@pytest.mark.parametrize("keep", [1, 2])
def test_a_decided_router_has_no_entropy_and_keeps_the_least(index, keep):
    routed = route(torch.tensor([[60.0, 0, 0, 0, 0, 0]]), Dynmole(keep_top_k=keep, index=index))
    assert tsallis_entropy(torch.tensor([1.0, 0, 0, 0, 0, 0]), index).item() == pytest.approx(0.0, abs=1e-5)
    choice = route(logits_of([[0.99, 0.002, 0.002, 0.002, 0.002, 0.002]]), Dynmole(keep_top_k=keep, index=index))
    assert active(choice).tolist() == [keep]
    assert active(routed).item() <= keep  # the others' probabilities are 0 in float32


@pytest.mark.parametrize("index", [1 - 1e-3, 1 + 1e-3, 1 + 1e-2])
def test_entropy_near_one_is_nearly_shannons(index):
    shannon = -(SKEWED * SKEWED.log()).sum().item() / math.log(6)
    assert tsallis_entropy(SKEWED, 1).item() == pytest.approx(shannon, abs=1e-6)
    assert tsallis_entropy(SKEWED, index).item() == pytest.approx(shannon, abs=1e-2)


def test_entropy_of_index_two_is_the_scaled_gini_index():
    assert tsallis_entropy(SKEWED, 2).item() == pytest.approx((1 - SKEWED.square().sum().item()) * 6 / 5, abs=1e-6)


def test_experts_are_kept_while_they_add_up_to_at_most_top_p():
    router = Dynmole(keep_top_k=1, top_p=0.85, threshold=1.0)
    assert route(logits_of(SKEWED), router).weights.tolist() == pytest.approx([0.5, 0.3, 0, 0, 0, 0], abs=1e-6)


def test_without_threshold_and_top_p_the_choice_is_the_best_k_not_renormalised():
    logits = random_logits()
    dynamic = route(logits, Dynmole(keep_top_k=2, top_p=0.0, threshold=1.0)).weights
    assert torch.allclose(dynamic / dynamic.sum(-1, keepdim=True), route(logits, TopK(2)).weights, atol=1e-6)
    assert (dynamic.sum(-1) < 1).all()


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    spread=st.floats(0.01, 30),
    keep=st.integers(1, 3),
    top_p=st.floats(0, 1),
    threshold=st.floats(0, 1),
    index=st.sampled_from([1.0, 1.1, 1.5, 2.0]),
)
def test_no_token_is_ever_without_an_expert(seed, spread, keep, top_p, threshold, index):
    logits = torch.randn(16, 5, generator=torch.Generator().manual_seed(seed)) * spread
    routed = route(logits, Dynmole(keep, top_p, threshold, index))
    assert (active(routed) >= 1).all()
    assert torch.isfinite(routed.weights).all()


def test_the_losses_of_dynmole_are_those_by_hand():
    router = Dynmole(keep_top_k=1, top_p=0.0, threshold=1.0, index=1, balance=0.5, entropy=0.25)
    probabilities = torch.tensor([[0.7, 0.3], [0.4, 0.6]])
    loss = auxiliary_loss([(route(probabilities.log(), router), None)], router)
    balance = 2 * (0.35 * 0.55 + 0.3 * 0.45)
    entropy = -sum(p * math.log(p) for p in (0.7, 0.3, 0.4, 0.6)) / 2 / math.log(2)
    assert loss.item() == pytest.approx(0.5 * balance + 0.25 * entropy, abs=1e-6)


def test_the_gradient_of_the_losses_is_finite_also_where_probabilities_vanish():
    for router in (TopK(2), Dynmole(), Dynmole(index=1), Dynmole(index=0.5)):
        logits = torch.tensor([[100.0, 0.0, -100.0], [0.0, 0.0, 0.0]], requires_grad=True)
        auxiliary_loss([(route(logits, router), None)], router).backward()
        assert torch.isfinite(logits.grad).all()


def test_the_distance_of_experts_is_that_of_their_updates():
    generator = torch.Generator().manual_seed(0)
    low, high = torch.randn(4, 3, 10, generator=generator), torch.randn(4, 7, 3, generator=generator)
    updates = [b.double() @ a.double() for a, b in zip(low, high, strict=True)]
    pairs = [torch.linalg.norm(a - b).item() for a, b in itertools.combinations(updates, 2)]
    assert update_distance(low, high).item() == pytest.approx(sum(pairs) / len(pairs), rel=1e-9)
    same = update_distance(low[:1].expand(3, -1, -1), high[:1].expand(3, -1, -1))
    assert same.item() == pytest.approx(0, abs=1e-5)
