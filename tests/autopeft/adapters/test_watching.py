"""What is recorded of routers, against a pass by hand."""

import pytest
import torch

from autopeft.adapters import apply
from autopeft.adapters.anatomy import describe
from autopeft.adapters.parts import parts_of
from autopeft.adapters.routing import tsallis_entropy
from autopeft.adapters.watching import routing_record, watching
from search_spaces.configuration import uniform
from search_spaces.methods.mola import Mola
from search_spaces.routers import Dynmole, TopK


@pytest.mark.parametrize("router", [TopK(2), Dynmole(1, threshold=0.99)])
def test_figures_are_those_of_all_tokens_that_are_no_padding(router, make_zoo, inputs_of):
    model = make_zoo("bert")
    apply(model, uniform(describe(model, "tiny"), ("query",), Mola(4, 2, 4.0, router), 1e-3), seed=0)
    whole = inputs_of("bert")
    experts = parts_of(model)[0].experts["encoder.layer.0.attention.self.query"]
    with torch.no_grad():
        experts.router.mul_(5)
    batches = [{name: tensor[rows] for name, tensor in whole.items()} for rows in (slice(0, 2), slice(2, 3))]
    probabilities, kept = [], []
    with watching(model) as tallies, torch.inference_mode():
        for batch in batches:
            model(**batch)
            counted = batch["attention_mask"].bool()
            probabilities.append(experts.routed.probabilities[counted])
            kept.append(experts.routed.weights[counted] > 0)
    with torch.inference_mode():
        model(**whole)  # not watched any more
    kept, probabilities = torch.cat(kept).double(), torch.cat(probabilities)
    assert len(kept) == 26
    first = routing_record(model, tallies)["modules"][0]
    assert first["load"] == pytest.approx((kept.sum(0) / kept.sum()).tolist(), rel=1e-3)
    assert first["active"] == pytest.approx(kept.sum(1).mean().item(), rel=1e-3)
    assert first["entropy"] == pytest.approx(tsallis_entropy(probabilities, 1).mean().item(), rel=1e-3)
    assert first["redundancy"] == 0  # B is zero before training
    if isinstance(router, Dynmole):
        assert 1 <= first["active"] < 4


def test_redundancy_is_the_distance_of_the_scaled_updates(make_zoo, inputs_of):
    model = make_zoo("bert")
    apply(model, uniform(describe(model, "tiny"), ("query",), Mola(3, 2, 5.0), 1e-3), seed=0)
    experts = parts_of(model)[1].experts["encoder.layer.1.attention.self.query"]
    with torch.no_grad():
        experts.lora_B.normal_(generator=torch.Generator().manual_seed(0))
    with watching(model) as tallies, torch.inference_mode():
        model(**inputs_of("bert"))
    low, high = experts.factors()
    updates = [2.5 * (b @ a).double() for a, b in zip(low, high, strict=True)]
    pairs = [torch.linalg.norm(updates[i] - updates[j]).item() for i, j in ((0, 1), (0, 2), (1, 2))]
    record = routing_record(model, tallies)
    assert record["modules"][1]["redundancy"] == pytest.approx(sum(pairs) / 3, rel=1e-3)
    assert record["layers"][0]["redundancy"] == 0


def test_a_model_without_routers_has_nothing_to_watch(make_zoo, inputs_of):
    model = make_zoo("bert")
    with watching(model) as tallies:
        model(**inputs_of("bert"))
    assert not tallies
