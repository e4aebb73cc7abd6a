"""MoLA in models: one expert is LoRA, what is not chosen stays still, padding, losses, copies, what stands beside."""

import copy
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch.utils.flop_counter import FlopCounterMode

from autopeft.adapters import adapter_parameters, apply, auxiliary_loss, load_adapter, merge, remove, save_adapter
from autopeft.adapters.anatomy import describe
from autopeft.adapters.methods.mola import Experts
from autopeft.adapters.parts import parts_of
from autopeft.adapters.routing import auxiliary_loss as loss_of
from autopeft.errors import ConfigurationError
from search_spaces.backbone import ModuleShape
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training, uniform
from search_spaces.cost import forward_flops
from search_spaces.methods.bias import Bias
from search_spaces.methods.ia3 import Ia3
from search_spaces.methods.lora import Lora
from search_spaces.methods.mola import Mola
from search_spaces.methods.parallel import Parallel
from search_spaces.routers import Dynmole, TopK

SHAPE = ModuleShape("up", "x", 12, 20)


def experts_of(method, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = Experts(method, SHAPE, torch.empty(0))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return made


def states(tokens=9):
    return torch.randn(2, tokens, 12, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("scaling", ["alpha/r", "rank-stabilised"])
def test_one_expert_computes_what_lora_does_bit_for_bit(scaling):
    method = Mola(1, 3, 5.0, TopK(1), scaling)
    experts, linear = experts_of(method), torch.nn.Linear(12, 20)
    frozen = copy.deepcopy(linear).requires_grad_(False)
    config = LoraConfig(r=3, lora_alpha=5, target_modules=["0"], use_rslora=scaling != "alpha/r", lora_dropout=0.0)
    model = inject_adapter_in_model(config, torch.nn.Sequential(linear))
    lora = model[0]
    with torch.no_grad():
        lora.lora_A["default"].weight.copy_(experts.lora_A)
        lora.lora_B["default"].weight.copy_(experts.lora_B)
    ours, theirs = frozen(states()) + experts(states()), model(states())
    assert torch.equal(ours, theirs)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    assert torch.equal(experts.lora_A.grad, lora.lora_A["default"].weight.grad)
    assert torch.equal(experts.lora_B.grad, lora.lora_B["default"].weight.grad)


def test_a_plan_of_one_expert_is_the_plan_of_plain_lora(make_zoo):
    backbone = describe(make_zoo("bert"), "tiny")
    one = uniform(backbone, ("query",), Mola(1, 2, 4.0, TopK(2)), 1e-3)
    plain = uniform(backbone, ("query",), Lora(2, 4.0), 1e-3)
    assert (one, one.digest) == (plain, plain.digest)
    data = plain.to_json() | {"layers": [{"query": {"mola": {"experts": 1, "rank": 2, "alpha": 4}}}] * 2}
    assert Configuration.from_json(data) == plain


@pytest.mark.parametrize("router", [TopK(2), TopK(4), Dynmole(threshold=0.8)])
def test_the_stacked_products_are_the_sum_over_experts(router):
    method = Mola(4, 3, 6.0, router)
    experts, hidden = experts_of(method), states()
    added = experts(hidden)
    low, high = experts.factors()
    weights = experts.routed.weights
    by_hand = sum(2.0 * weights[..., e : e + 1] * (hidden @ low[e].T @ high[e].T) for e in range(4))
    assert torch.allclose(added, by_hand, atol=1e-4)


def test_experts_without_a_token_get_no_gradient():
    experts = experts_of(Mola(4, 3, 6.0, TopK(2)))
    hidden = states().abs()
    with torch.no_grad():
        experts.router[:] = torch.tensor([1.0, 0.5, -1.0, -2.0])[:, None]
    experts(hidden).square().sum().backward()
    low, high = experts.lora_A.grad.view(4, 3, -1), experts.lora_B.grad.view(-1, 4, 3)
    assert not low[2:].any()
    assert not high[:, 2:].any()
    assert all(low[expert].any() and high[:, expert].any() for expert in (0, 1))
    assert experts.router.grad[:2].any()


def test_operations_are_those_that_torch_counts(make_zoo, inputs_of):
    model = make_zoo("bert")
    backbone = describe(model, "tiny")
    plan = uniform(backbone, backbone.roles, Mola(3, 2, 4.0), 1e-3)
    batch = inputs_of("bert")
    counts = []
    for prepare in (lambda: None, lambda: apply(model, plan, seed=0)):
        prepare()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(**batch)
        counts.append(counter.get_total_flops())
    assert counts[1] - counts[0] == forward_flops(plan, backbone, batch["input_ids"].numel())


def test_the_loss_of_a_model_is_the_sum_over_its_layers_with_padding_left_out(make_zoo, inputs_of):
    model, batch = make_zoo("bert"), inputs_of("bert")
    router = TopK(2, 0.5)
    row = LayerPlan((Placement("query", Mola(4, 2, 4.0, router)), Placement("up", Mola(4, 1, 4.0, router))))
    other = LayerPlan((Placement("down", Mola(3, 2, 4.0)), Placement("key", Lora(2, 4.0))))
    apply(model, Configuration((row, other), Training(1e-3)), seed=0)
    with pytest.raises(RuntimeError, match=r"the router at encoder.layer.0.* has seen no batch"):
        auxiliary_loss(model)
    model(**batch)
    first, second = parts_of(model)[-2:]
    mask = batch["attention_mask"]
    by_hand = [
        loss_of([(experts.routed, mask) for experts in first.experts.values()], router),
        loss_of([(experts.routed, mask) for experts in second.experts.values()], TopK(2)),
    ]
    assert auxiliary_loss(model).item() == pytest.approx(sum(by_hand).item(), rel=1e-6)
    changed = {**batch, "input_ids": batch["input_ids"].masked_fill(mask == 0, 7)}
    before = auxiliary_loss(model).item()
    model(**changed)
    assert auxiliary_loss(model).item() == pytest.approx(before, rel=1e-6)
    model(batch["input_ids"], mask)  # the same, by position
    assert auxiliary_loss(model).item() == pytest.approx(before, rel=1e-6)


def test_modules_of_a_layer_with_other_sizes_are_balanced_apart(make_zoo, inputs_of):
    model = make_zoo("bert")
    row = LayerPlan((Placement("query", Mola(4, 2, 4.0)), Placement("up", Mola(3, 2, 4.0, Dynmole()))))
    apply(model, Configuration((row, LayerPlan()), Training(1e-3)), seed=0)
    model(**inputs_of("bert"))
    assert auxiliary_loss(model).item() > 0


def test_padding_of_an_encoder_and_its_decoder_is_told_apart(make_zoo, inputs_of):
    model = make_zoo("t5")
    backbone = describe(model, "tiny")
    apply(model, uniform(backbone, ("query", "cross_key"), Mola(3, 2, 4.0), 1e-3), seed=0)
    batch = inputs_of("t5")
    masks = {"decoder_attention_mask": torch.ones(3, 6, dtype=torch.long)}
    model(**batch, **masks)
    parts = parts_of(model)
    shapes = {path: tuple(part.last(path)[1].shape) for part in parts for path in part.experts}
    assert shapes["encoder.block.1.layer.0.SelfAttention.q"] == (3, 10)
    assert shapes["decoder.block.1.layer.0.SelfAttention.q"] == (3, 6)
    assert shapes["decoder.block.1.layer.1.EncDecAttention.k"] == (3, 10)
    model(**batch)
    assert parts[-1].last("decoder.block.1.layer.0.SelfAttention.q")[1] is None


def test_a_model_without_routers_adds_nothing_to_the_loss(make_zoo, inputs_of):
    model = make_zoo("bert")
    apply(model, uniform(describe(model, "tiny"), ("query",), Lora(2, 4.0), 1e-3))
    model(**inputs_of("bert"))
    assert auxiliary_loss(model) is None


@pytest.mark.parametrize(
    ("router", "least"), [(TopK(1, 1.0), 2.0), (Dynmole(threshold=1.0, balance=0.0, entropy=1.0), 0.0)]
)
def test_routers_reach_the_least_loss_when_it_alone_is_trained_on(router, least, make_zoo, inputs_of):
    """Even load in both layers is 1 each; no entropy at all is 0."""
    model, batch = make_zoo("bert"), inputs_of("bert")
    apply(model, uniform(describe(model, "tiny"), ("query", "up"), Mola(4, 2, 4.0, router), 1e-3), seed=0)
    routers = [parameter for name, parameter in adapter_parameters(model).items() if name.endswith("router")]
    optimizer = torch.optim.SGD(routers, lr=0.3)
    losses = []
    for _ in range(80):
        model(**batch)
        loss = auxiliary_loss(model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert 0 <= losses[-1] - least < 0.2 * (losses[0] - least)


def test_dynmole_trains_saves_and_loads(make_zoo, inputs_of, tmp_path):
    model, batch = make_zoo("llama"), inputs_of("llama")
    plan = uniform(describe(model, "tiny"), ("query", "down"), Mola(4, 2, 4.0, Dynmole(threshold=0.7)), 1e-3)
    assert Configuration.from_json(plan.to_json()) == plan
    wanted = torch.sin(torch.arange(16) * 2.0)
    with torch.no_grad():
        before = model(**batch).last_hidden_state
    apply(model, plan, seed=0)
    optimizer = torch.optim.AdamW(adapter_parameters(model).values(), lr=3e-2)
    losses = []
    for _ in range(30):
        loss = (model(**batch).last_hidden_state - wanted).square().mean()
        optimizer.zero_grad()
        (loss + auxiliary_loss(model)).backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    with torch.no_grad():
        trained = model(**batch).last_hidden_state
    save_adapter(model, tmp_path)
    remove(model)
    with torch.no_grad():
        assert torch.equal(model(**batch).last_hidden_state, before)
    assert load_adapter(model, tmp_path) == plan
    with torch.no_grad():
        assert torch.equal(model(**batch).last_hidden_state, trained)
    with pytest.raises(ConfigurationError, match=r"cannot merge mola at layers\.0, mola at layers\.1"):
        merge(model)


def test_a_model_can_be_copied_between_steps(make_zoo, inputs_of):
    model, batch = make_zoo("bert"), inputs_of("bert")
    apply(model, uniform(describe(model, "tiny"), ("query",), Mola(3, 2, 4.0), 1e-3), seed=0)
    model(**batch)
    twin = copy.deepcopy(model)
    remove(model)
    assert torch.equal(twin(**batch).last_hidden_state, model(**batch).last_hidden_state)  # B is still zero
    assert auxiliary_loss(twin).item() > 0


def test_experts_stand_beside_what_lora_does(make_zoo, inputs_of):
    model, batch = make_zoo("bert"), inputs_of("bert")
    backbone = describe(model, "tiny")
    beside = (Placement("down", Ia3()), Placement("down", Bias()), Placement("feed_forward", Parallel(2)))
    outputs = []
    for method in (Lora(2, 4.0), Mola(3, 2, 4.0, TopK(3))):
        row = LayerPlan((Placement("down", method), *beside))
        apply(model, Configuration((row, row), Training(1e-3)), seed=0)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(1)
            for name, parameter in adapter_parameters(model).items():
                if not any(part in name for part in ("lora", "router")):
                    parameter.copy_(torch.randn(parameter.shape, generator=generator))
            lora = {name: p for name, p in adapter_parameters(model).items() if "lora" in name}
            for name, parameter in lora.items():
                low = "lora_A" in name
                values = torch.randn((2, backbone.intermediate_size) if low else (16, 2), generator=generator)
                parameter.copy_(
                    values.repeat(3, 1) if low and "mola" in name else values.repeat(1, 3) if "mola" in name else values
                )
            outputs.append(model(**batch).last_hidden_state)
        remove(model)
    # three equal experts, all kept, are one
    assert torch.allclose(*outputs, atol=1e-4)


def test_an_update_of_a_weight_and_experts_exclude_each_other():
    with pytest.raises(ConfigurationError, match="lora and mola at 'up': of updates of one weight only"):
        LayerPlan((Placement("up", Lora(1, 1.0)), Placement("up", Mola(2, 1, 1.0))))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Mola(0, 2, 4.0), "MoLA experts 0: expected a whole number ≥ 1; leave it out for 0"),
        (lambda: Mola(2, 0, 4.0), "MoLA rank 0"),
        (lambda: Mola(2, 2, 4.0, TopK(3)), "MoLA top_k 3 of 2 experts: give at most 2"),
        (lambda: Mola(2, 2, 4.0, Dynmole(3)), "DynMoLE keep_top_k 3 of 2 experts: give at most 2"),
        (lambda: TopK(2, -0.1), r"MoLA balance -0.1: expected a number in \[0, 1\]"),
        (lambda: Dynmole(top_p=1.1), r"DynMoLE top_p 1.1: expected a number in \[0, 1\]"),
        (
            lambda: Dynmole(index=1.0001),
            "DynMoLE index 1.0001: too near to 1 for its formula; give 1, or 0.05 away",
        ),
        (lambda: Dynmole(index=0), r"DynMoLE index 0: expected a number in \(0, 10\]"),
        (
            lambda: Mola.from_json({"experts": 2, "rank": 1, "alpha": 1, "router": "best"}),
            "MoLA router 'best': expected top-k or dynmole",
        ),
        (lambda: Mola.from_json({"experts": 2, "rank": 1, "alpha": 1, "router": [1]}), r"MoLA router \[1\]"),
        (
            lambda: Mola.from_json({"experts": 2, "rank": 1, "alpha": 1, "threshold": 0.5}),
            "MoLA with router top-k takes top_k, balance, got threshold",
        ),
    ],
)
def test_sizes_that_nothing_can_have_are_refused(build, message):
    with pytest.raises(ConfigurationError, match=message):
        build()


def test_json_says_what_is_unusual():
    plain = Mola(4, 2, 4.0)
    assert plain.to_json() == {"experts": 4, "rank": 2, "alpha": 4.0, "top_k": 2}
    for method in (
        plain,
        replace(plain, router=TopK(1, 0.0), scaling="rank-stabilised"),
        replace(plain, router=Dynmole()),
        replace(plain, router=Dynmole(1, 0.5, 0.8, 2.0, 0.01, 0.0)),
    ):
        assert Mola.from_json(method.to_json()) == method
