"""What a part answers can be scaled down for a moment, whatever the method."""

from contextlib import ExitStack

import pytest
import torch

from autopeft.adapters import TrainingRows, adapter_parameters, apply
from autopeft.adapters.anatomy import describe, layer_paths
from autopeft.adapters.layers import parts_by_layer
from autopeft.adapters.parts import parts_of
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training
from search_spaces.methods.lora import Lora

LINEAR = {"mola", "lora", "hira", "lokr", "vera", "ia3", "bias", "serial", "parallel"}
"""Methods whose response in one module is linear in what is scaled."""


def output(model, batch):
    with torch.no_grad():
        return model(**batch).last_hidden_state


def trained(model, plan, batch):
    """The outputs before and after adapters, which have moved far from their start."""
    before = output(model, batch)

    def loss(rows):
        return model(**rows).last_hidden_state.square().mean()

    apply(model, plan, seed=0, rows=TrainingRows(lambda: [batch], loss))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return before, output(model, batch)


def suppressed(model, batch, factor, parts=None):
    with ExitStack() as stack:
        for part in parts_of(model) if parts is None else parts:
            stack.enter_context(part.suppressed(factor))
        return output(model, batch)


def check_both_ends(model, plan, batch):
    before, after = trained(model, plan, batch)
    values = {name: value.detach().clone() for name, value in adapter_parameters(model).items()}
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    size = (after - before).abs().max()
    assert size > 1e-4
    assert (suppressed(model, batch, 0.0) - before).abs().max() <= 1e-2 * size
    assert torch.equal(suppressed(model, batch, 1.0), after)
    half = suppressed(model, batch, 0.5)
    assert (half - before).abs().max() > 1e-3 * size
    assert (half - after).abs().max() > 1e-3 * size
    assert all(torch.equal(value, values[name]) for name, value in adapter_parameters(model).items())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert torch.equal(output(model, batch), after)


def test_factor_0_is_the_backbone_and_1_is_nothing_done(zoo_family, method, make_zoo, inputs_of, everywhere):
    model = make_zoo(zoo_family)
    plan = everywhere(method, describe(model, zoo_family))
    if not plan.is_empty:
        check_both_ends(model, plan, inputs_of(zoo_family))


def test_of_a_moved_start_only_what_was_learned_is_scaled(initialisation, make_zoo, inputs_of, everywhere):
    model = make_zoo("llama")
    check_both_ends(model, everywhere(initialisation, describe(model, "llama")), inputs_of("llama"))


@pytest.mark.parametrize("name", sorted(LINEAR))
def test_the_response_of_one_module_is_scaled_in_proportion(name, examples, make_zoo, inputs_of, everywhere):
    """Seen where nothing non-linear follows: at the output of the highest layer's last module."""
    model, batch, method = make_zoo("llama"), inputs_of("llama"), examples[name]
    backbone = describe(model, "llama")
    site = "feed_forward" if "feed_forward" in method.sites else "down"
    if name == "bias":
        model, batch = make_zoo("gpt2"), inputs_of("gpt2")
        backbone = describe(model, "gpt2")
    top = LayerPlan((Placement(site, method),))
    rows = (*(LayerPlan(),) * (backbone.layer_count - 1), top)
    model.norm = model.ln_f = torch.nn.Identity()
    before, after = trained(model, Configuration(rows, Training(1e-3)), batch)
    quarter = suppressed(model, batch, 0.25)
    assert torch.allclose(quarter - before, 0.25 * (after - before), atol=1e-6, rtol=1e-3)


def test_parts_are_found_by_the_layer_that_they_stand_in(zoo_family, make_zoo, everywhere):
    model = make_zoo(zoo_family)
    backbone = describe(model, zoo_family)
    plan = everywhere(Lora(1, 2.0), backbone)
    apply(model, plan, seed=0)
    paths = layer_paths(model)
    assert len(paths) == len(set(paths)) == backbone.layer_count
    found = parts_by_layer(model)
    assert [{part.path for part in parts} for parts in found] == [
        {backbone.module(layer, placement.site).path for placement in row.placements}
        for layer, row in enumerate(plan.layers)
    ]
