"""Several methods in one model: random plans, five methods in six layers, checkpointing, mixed precision, data."""

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)

from autopeft.adapters import TrainingRows, adapter_parameters, apply, load_adapter, merge, remove, save_adapter
from autopeft.adapters.anatomy import describe
from autopeft.errors import ConfigurationError
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training, uniform
from search_spaces.cost import stored_elements, trainable_parameters
from search_spaces.methods import METHODS, LayerMethod
from search_spaces.methods.bias import Bias
from search_spaces.methods.dora import Dora
from search_spaces.methods.hira import Hira
from search_spaces.methods.ia3 import Ia3
from search_spaces.methods.loha import Loha
from search_spaces.methods.lokr import Lokr
from search_spaces.methods.lora import Lora
from search_spaces.methods.mola import Mola
from search_spaces.methods.norm import Norm
from search_spaces.methods.oft import Oft
from search_spaces.methods.parallel import Parallel
from search_spaces.methods.prefix import Prefix
from search_spaces.methods.serial import Serial
from search_spaces.methods.vera import Vera
from search_spaces.routers import Dynmole, TopK

RANKS = st.integers(1, 6)
ALPHAS = st.sampled_from([1.0, 2.5, 8.0])
CHOICES = st.one_of(
    st.builds(
        Lora, RANKS, ALPHAS, st.sampled_from(["alpha/r", "rank-stabilised"]), st.sampled_from(["default", "pissa"])
    ),
    st.builds(Dora, RANKS, ALPHAS),
    st.just(Ia3()),
    st.builds(Hira, RANKS),
    st.builds(Loha, RANKS, ALPHAS),
    st.builds(Lokr, RANKS, ALPHAS, st.sampled_from([-1, 2, 3])),
    st.builds(Vera, RANKS, st.just(0.1), st.integers(0, 2)),
    st.builds(Oft, st.sampled_from([2, 4, 8])),
    st.builds(Mola, st.integers(2, 4), RANKS, ALPHAS, st.sampled_from([TopK(1), TopK(2), Dynmole(1)])),
    st.just(Bias()),
    st.just(Norm()),
    st.builds(Serial, RANKS),
    st.builds(Parallel, RANKS),
    st.builds(Prefix, RANKS),
)


def placed(backbone, layer, wishes):
    """A row of those wishes that the layer can take, one weight update a module."""
    row = LayerPlan()
    for site_index, method in wishes:
        sites = [site for site in backbone.sites(layer) if site in method.sites]
        if not sites or method.name in dict(backbone.refusals):
            continue
        site = sites[site_index % len(sites)]
        try:
            if not isinstance(method, LayerMethod):
                method.require_fit(backbone.module(layer, site))
            row = LayerPlan((*row.placements, Placement(site, method)))
        except ConfigurationError:
            continue
    return row


WISHES = st.lists(st.lists(st.tuples(st.integers(0, 12), CHOICES), max_size=5), min_size=4, max_size=4)


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(wishes=WISHES)
def test_arithmetic_model_and_file_agree_for_random_plans(zoo_family, wishes, make_zoo, inputs_of, tmp_path):
    model = make_zoo(zoo_family)
    backbone = describe(model, zoo_family)
    rows = tuple(placed(backbone, layer, wishes[layer]) for layer in range(backbone.layer_count))
    plan = Configuration(rows, Training(1e-3))
    assert Configuration.from_json(plan.to_json()) == plan
    batch = inputs_of(zoo_family)
    before = model(**batch).last_hidden_state
    apply(model, plan, seed=1)
    built = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    save_adapter(model, tmp_path)
    saved = sum(tensor.numel() for tensor in load_file(tmp_path / "adapter.safetensors").values())
    assert (trainable_parameters(plan, backbone), stored_elements(plan, backbone)) == (built, saved)
    after = model(**batch).last_hidden_state
    remove(model)
    assert torch.equal(model(**batch).last_hidden_state, before)
    load_adapter(model, tmp_path)
    assert (model(**batch).last_hidden_state - after).abs().max() <= 1e-5
    if all(METHODS[method.name].mergeable for _, _, method in plan.placements()):
        merge(model)
        assert (model(**batch).last_hidden_state - after).abs().max() <= 1e-5


def test_ranks_may_differ_where_scaling_and_initialisation_are_special(make_zoo):
    model = make_zoo("bert")
    first, second = (Lora(rank, 4.0, "rank-stabilised", "pissa") for rank in (1, 2))
    row = LayerPlan((Placement("query", first), Placement("value", second)))
    apply(model, Configuration((row, row), Training(1e-3)))
    scalings = {module.scaling["autopeft"] for module in model.modules() if hasattr(module, "lora_A")}
    assert scalings == {4.0, 4.0 / 2**0.5}


SIX_LAYERS = (
    LayerPlan((Placement("query", Lora(2, 4.0)), Placement("query", Bias()), Placement("value", Ia3()))),
    LayerPlan((Placement("query", Dora(1, 2.0)), Placement("norms", Norm()), Placement("key", Vera(4)))),
    LayerPlan((Placement("feed_forward", Serial(3)), Placement("feed_forward", Parallel(5)))),
    LayerPlan((Placement("attention", Prefix(3)), Placement("up", Hira(2)), Placement("up", Ia3()))),
    LayerPlan((Placement("down", Oft(4)), Placement("attention", Prefix(1)), Placement("feed_forward", Parallel(2)))),
    LayerPlan((Placement("output", Lokr(1, 2.0)), Placement("value", Lora(2, 4.0, init="pissa")))),
)
MIXED = Configuration(SIX_LAYERS, Training(1e-2))


def six_layers():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 6, "num_attention_heads": 2, "intermediate_size": 32}
    return BertModel(BertConfig(**sizes, vocab_size=50, max_position_embeddings=40)).eval()


@pytest.fixture
def headed(tmp_path):
    """Makes six layers of BERT with a head for two classes."""
    six_layers().save_pretrained(tmp_path / "base")

    def make():
        torch.manual_seed(1)
        return AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=2).eval()

    return make


def step(model, optimizer, batch, *, autocast=False):
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = model(**batch, labels=torch.tensor([0, 1, 1])).loss
    loss.backward()
    optimizer.step()
    return loss.item()


def trained(model):
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def dead(model):
    return [name for name, parameter in adapter_parameters(model).items() if parameter.grad is None]


def test_many_methods_in_six_layers_train_save_and_load_with_equal_logits(headed, inputs_of, tmp_path):
    model, batch = headed(), inputs_of("bert")
    apply(model, MIXED, seed=0)
    assert len({method.name for _, _, method in MIXED.placements()}) >= 5
    optimizer = torch.optim.AdamW(trained(model), lr=1e-2)
    losses = [step(model, optimizer, batch) for _ in range(12)]
    assert not dead(model)
    assert losses[-1] < losses[0]
    logits = model(**batch).logits
    save_adapter(model, tmp_path / "adapter")
    other = headed()
    other.classifier.load_state_dict(model.classifier.state_dict())
    load_adapter(other, tmp_path / "adapter")
    assert (other(**batch).logits - logits).abs().max() <= 1e-5
    with pytest.raises(ConfigurationError, match=r"prefix at encoder.layer.3.attention.self, .*parallel and serial at"):
        merge(model)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_leaves_no_adapter_without_a_gradient(headed, inputs_of, reentrant):
    model, plain = headed(), headed()
    batch = inputs_of("bert")
    for each in (model, plain):
        apply(each, MIXED, seed=0)
        each.train()
        for module in each.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()
    losses = [step(each, torch.optim.SGD(trained(each), lr=0.1), batch) for each in (model, plain)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert not dead(model)
    for name, parameter in adapter_parameters(plain).items():
        assert torch.allclose(parameter.grad, adapter_parameters(model)[name].grad, atol=1e-6), name


def test_mixed_precision_leaves_no_adapter_without_a_gradient(headed, inputs_of):
    model = headed()
    apply(model, MIXED, seed=0)
    loss = step(model, torch.optim.SGD(trained(model), lr=0.1), inputs_of("bert"), autocast=True)
    assert not dead(model)
    assert all(torch.isfinite(parameter.grad).all() for parameter in adapter_parameters(model).values())
    assert loss == loss


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5"])
def test_decoders_keep_gradients_under_checkpointing_and_mixed_precision(name, make_zoo, inputs_of):
    model = make_zoo(name).train()
    rows = [LayerPlan((Placement("attention", Prefix(2)), Placement("feed_forward", Serial(2))))] * 4
    apply(model, Configuration(tuple(rows[: describe(model, name).layer_count]), Training(1e-3)), seed=0)
    model.activation_checkpointing_enable()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(**inputs_of(name)).last_hidden_state.float().square().mean().backward()
    assert not dead(model)


def test_a_copied_model_trains_its_own_adapters(headed, inputs_of):
    model = headed()
    apply(model, MIXED, seed=0)
    twin = copy.deepcopy(model)
    step(twin, torch.optim.SGD(trained(twin), lr=0.5), inputs_of("bert"))
    assert not dead(twin)
    assert len(dead(model)) == len(adapter_parameters(model))
    remove(twin)
    assert adapter_parameters(model)


@pytest.mark.parametrize("init", ["eva", "corda", "corda_ipm", "lora_ga"])
def test_an_initialisation_that_reads_rows_asks_for_them_and_leaves_nothing_behind(make_zoo, inputs_of, init):
    model = make_zoo("bert")
    plan = uniform(describe(model, "tiny"), ("query", "down"), Lora(2, 4.0, init=init), 1e-3)
    with pytest.raises(ConfigurationError, match=f"LoRA init '{init}' reads training rows"):
        apply(model, plan)
    assert not adapter_parameters(model)
    seen = []

    def loss(batch):
        seen.append(batch)
        return model(**batch).last_hidden_state.square().mean()

    apply(model, plan, rows=TrainingRows(lambda: [inputs_of("bert")], loss))
    assert seen
    assert all(not hasattr(module, "eigens") and not module._forward_hooks for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_eva_starts_from_the_directions_in_which_the_inputs_vary_most(make_zoo, inputs_of):
    model, batch = make_zoo("bert"), inputs_of("bert")
    inputs = []
    hook = model.encoder.layer[0].output.dense.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    model(**batch)
    hook.remove()
    plan = Configuration((LayerPlan((Placement("down", Lora(2, 4.0, init="eva")),)), LayerPlan()), Training(1e-3))
    apply(model, plan, rows=TrainingRows(lambda: [batch], lambda batch: model(**batch).last_hidden_state.mean()))
    states = inputs[0][batch["attention_mask"].bool()]
    expected = torch.linalg.svd(states - states.mean(0), full_matrices=False).Vh[:2]
    got = adapter_parameters(model)["encoder.layer.0.output.dense.lora_A.weight"]
    assert torch.allclose((got * expected).sum(1).abs(), torch.ones(2), atol=1e-3)


def test_lora_ga_starts_at_the_same_place_whatever_signs_the_decomposition_has(make_zoo, inputs_of, monkeypatch):
    batch, starts, weights = inputs_of("bert"), [], []
    decompose = torch.svd_lowrank
    for flipped in (1.0, -1.0):

        def other_signs(*given, sign=flipped, **options):
            left, values, right = decompose(*given, **options)
            signs = torch.where(torch.arange(len(values)) % 2 == 0, sign, 1.0)
            return left * signs, values, right * signs

        monkeypatch.setattr(torch, "svd_lowrank", other_signs)
        model = make_zoo("bert")
        plan = uniform(describe(model, "tiny"), ("query", "down"), Lora(2, 4.0, init="lora_ga"), 1e-3)
        apply(model, plan, rows=TrainingRows(lambda: [batch], lambda b, m=model: m(**b).last_hidden_state.mean()))
        starts.append({name: tensor.clone() for name, tensor in adapter_parameters(model).items()})
        weights.append(model.encoder.layer[0].output.dense.base_layer.weight.clone())
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])
    assert torch.equal(*weights)
    assert all(tensor.abs().amax() > 0 for tensor in starts[0].values())


def test_corda_trains_the_weakest_or_the_strongest_directions_of_what_the_rows_say(make_zoo, inputs_of):
    batch, strengths = inputs_of("bert"), {}
    for init in ("corda", "corda_ipm"):
        model, inputs = make_zoo("bert"), []
        plan = Configuration((LayerPlan((Placement("down", Lora(2, 4.0, init=init)),)), LayerPlan()), Training(1e-3))
        apply(model, plan, rows=TrainingRows(lambda: [batch], lambda b, m=model: m(**b).last_hidden_state.mean()))
        dense = model.encoder.layer[0].output.dense
        hook = dense.register_forward_pre_hook(lambda _, given, seen=inputs: seen.append(given[0]))
        model(**batch)
        hook.remove()
        low, high = (dense.lora_A["autopeft"].weight, dense.lora_B["autopeft"].weight)
        strengths[init] = (inputs[0] @ low.T @ high.T).square().sum().item()
    assert strengths["corda_ipm"] > 10 * strengths["corda"]


@pytest.mark.slow
def test_the_trainer_of_transformers_trains_a_plan_in_a_plain_model(headed, inputs_of, tmp_path):
    pytest.importorskip("accelerate")
    model, batch = headed(), inputs_of("bert")
    apply(model, MIXED, seed=0)
    start = {name: parameter.detach().clone() for name, parameter in adapter_parameters(model).items()}
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    rows = [{**{k: v[i] for k, v in batch.items()}, "labels": i % 2} for i in range(3)] * 4
    arguments = TrainingArguments(
        str(tmp_path / "run"), max_steps=3, learning_rate=1e-2, use_cpu=True, report_to=[], save_strategy="no"
    )
    Trainer(model=model, args=arguments, train_dataset=rows).train()
    assert isinstance(model, PreTrainedModel)
    moved = [name for name, parameter in adapter_parameters(model).items() if not torch.equal(parameter, start[name])]
    assert set(moved) == set(start)
    parameters = dict(model.named_parameters())
    assert all(torch.equal(parameters[name], tensor) for name, tensor in frozen.items())
