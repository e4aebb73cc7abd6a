"""Adapters on backbones in 4 and 8 bits, by bitsandbytes' own arithmetic on CPUs."""

import copy
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
import transformers as hf

import autopeft.adapters.quantisation
from autopeft.adapters import TrainingRows, adapter_parameters, apply, load_adapter, merge, remove, save_adapter
from autopeft.adapters.anatomy import describe
from autopeft.adapters.models import backbone_shapes, load_classifier, load_language_model, model_spec
from autopeft.adapters.parts import parts_of
from autopeft.adapters.quantisation import dequantised_weight, quantisation_of, quantised_modules, scales
from autopeft.adapters.weights import Stand
from autopeft.budget import parse_budget
from autopeft.errors import BackboneError, ConfigurationError
from autopeft.regime import Regime
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training
from search_spaces.memory import Workload, training_memory
from search_spaces.methods.bias import Bias
from search_spaces.methods.dora import Dora
from search_spaces.methods.loha import Loha
from search_spaces.methods.lora import Lora
from search_spaces.quantisation import frozen_bytes
from workers.intact import bit_sum
from workers.memory import MemoryMeter

pytest.importorskip("bitsandbytes", reason="bitsandbytes is missing: pip install 'autopeft[bitsandbytes]'")

CPU = torch.device("cpu")
TOKENS = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
SIZES = {"vocab_size": 50, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
MADE = {
    "llama": lambda: hf.LlamaForCausalLM(
        hf.LlamaConfig(
            **SIZES, **TOKENS, num_key_value_heads=2, intermediate_size=192, initializer_range=0.1, attention_bias=True
        )
    ),
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(n_embd=64, n_layer=2, n_head=2, vocab_size=50, n_positions=40, bos_token_id=0, eos_token_id=2)
    ),
    "bert": lambda: hf.BertModel(hf.BertConfig(**SIZES, intermediate_size=128, max_position_embeddings=40)),
    "t5": lambda: hf.T5Model(hf.T5Config(d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, vocab_size=50)),
}
BITS = pytest.mark.parametrize("load_in", ["4bit", "8bit"])
TRAINED_SOMEHOW = ("hira", "vera", "oft", "norm", "serial", "parallel", "prefix", "bias")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    found = {}
    for name, make in MADE.items():
        torch.manual_seed(0)
        found[name] = str(tmp_path_factory.mktemp(name))
        make().save_pretrained(found[name])
    return found


@pytest.fixture(scope="module")
def load(folders):
    """Loads a checkpoint with a mean-pooling head; the model comes back, made once and to be left as it was."""
    made = {}

    def make(load_in, name="llama", precision="fp32"):
        key = load_in, name, precision
        if key not in made:
            spec = replace(model_spec(folders[name], "stock" if name == "t5" else "mean"), load_in=load_in)
            stand = Stand(CPU, Regime(precision))
            made[key] = load_classifier(spec, 2, False, 0, stand).model
        return made[key]

    return make


@pytest.fixture
def batch():
    ids = torch.randint(5, 50, (3, 10), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    ids[2, 6:], mask[2, 6:] = 1, 0
    return {"input_ids": ids, "attention_mask": mask}


def states(model, batch):
    return model(**batch).last_hidden_state


def test_the_shapes_and_so_the_budget_are_those_of_the_unpacked_checkpoint(load, folders):
    for name in ("llama", "bert"):
        shapes = backbone_shapes(folders[name])
        for load_in in ("4bit", "8bit"):
            assert replace(describe(load(load_in, name), shapes.name), name=shapes.name) == shapes
    assert parse_budget("0.5%", describe(load("4bit"), "x").parameter_count) == parse_budget(
        "0.5%", backbone_shapes(folders["llama"]).parameter_count
    )


@BITS
@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_storage_is_what_the_arithmetic_says(load, name, load_in, precision):
    model = load(load_in, name, precision)
    backbone = describe(model.base_model, name)
    inside = model.base_model
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in (*inside.parameters(), *scales(inside))
    }
    expected = frozen_bytes(backbone, 2 if precision == "bf16" else 4, load_in)
    kept_in_float32 = (
        sum(2 * p.numel() for p in inside.parameters() if p.dtype == torch.float32) if precision == "bf16" else 0
    )
    assert sum(storages.values()) == expected + kept_in_float32
    assert kept_in_float32 == 0 or name == "t5"  # transformers keeps some of T5 in float32


@BITS
def test_only_linear_modules_of_layers_are_packed_and_stand_for_the_checkpoint(load, load_in):
    packed, plain = load(load_in), load(None)
    names = set(quantised_modules(packed))
    assert names == {module.path for row in describe(plain, "x").layers for module in row}
    for name in names:
        weight, original = dequantised_weight(packed.get_submodule(name)), plain.get_parameter(f"{name}.weight")
        assert (weight - original).abs().max() < (0.16 if load_in == "4bit" else 0.01) * original.abs().max()


@BITS
@pytest.mark.parametrize("name", ["lora", "dora", "ia3", "mola"])
def test_the_four_methods_train_and_leave_the_packed_weights_alone(load, batch, examples, everywhere, name, load_in):
    model = load(load_in)
    backbone = describe(model, "llama")
    plan = everywhere(examples[name], backbone)
    before, untouched = bit_sum(model), states(model, batch)
    apply(model, plan, seed=0)
    try:
        parameters = adapter_parameters(model)
        with torch.no_grad():
            assert (states(model, batch) - untouched).abs().max() == 0
        optimizer, losses = torch.optim.AdamW(parameters.values(), lr=1e-2), []
        meter = MemoryMeter(model, CPU)
        for step in range(5):
            with meter.forward_pass(noted=step == 0):
                answer = states(model, batch)
            loss = answer.square().mean()
            optimizer.zero_grad()
            loss.backward()
            assert all(p.grad is not None and p.dtype == torch.float32 for p in parameters.values())
            optimizer.step()
            losses.append(float(loss.detach()))
        meter.after_step(parameters.values(), optimizer)
        assert losses[-1] < losses[0]
        peak = training_memory(plan, backbone, Workload(3, 10, head="none", quantisation=load_in))
        if load_in == "4bit":
            assert peak.held == pytest.approx(meter.peak_bytes, rel=0.01)
        else:  # what bitsandbytes keeps of inputs is in no saved tensor, so the meter of CPUs does not see it
            assert meter.peak_bytes <= 1.01 * peak.held
    finally:
        remove(model)
    assert bit_sum(model) == before
    assert torch.equal(states(model, batch), untouched)


@BITS
@pytest.mark.parametrize("name", TRAINED_SOMEHOW)
def test_other_methods_train_too(load, batch, examples, everywhere, name, load_in):
    model = load(load_in)
    backbone = describe(model, "llama")
    plan = everywhere(examples[name], backbone)
    before = bit_sum(model)
    apply(model, plan, seed=0)
    try:
        with torch.no_grad():
            meter = MemoryMeter(model, CPU)
        with meter.forward_pass(noted=True):
            loss = states(model, batch).square().mean()
        loss.backward()
        assert all(parameter.grad is not None for parameter in adapter_parameters(model).values())
        peak = training_memory(plan, backbone, Workload(3, 10, head="none", quantisation=load_in))
        assert meter.saved_bytes <= 1.06 * peak.activations
    finally:
        remove(model)
    assert bit_sum(model) == before


@pytest.mark.parametrize(
    ("start", "load_in", "reason"),
    [
        *((Lora(2, 4.0, init=init), "4bit", f"init {init} takes") for init in ("pissa", "olora", "corda", "lora_ga")),
        (Lora(2, 4.0, init="orthogonal"), "8bit", "init orthogonal takes its type from the frozen weight"),
    ],
)
def test_what_needs_the_weight_unpacked_is_refused_with_the_reason(load, batch, everywhere, start, load_in, reason):
    model = load(load_in)
    before = bit_sum(model)
    rows = TrainingRows(lambda: [batch], lambda b: states(model, b).sum())
    with pytest.raises(BackboneError, match=f"layer 0 query in {load_in}: LoRA .*{reason}.*without --load-in"):
        apply(model, everywhere(start, describe(model, "llama")), seed=0, rows=rows)
    assert bit_sum(model) == before


@pytest.mark.parametrize("name", ["loha", "lokr"])
def test_methods_that_read_widths_off_the_weight_are_refused_in_four_bits(load, examples, everywhere, name):
    model = load("4bit")
    with pytest.raises(BackboneError, match=f"reads the widths of {name} off the frozen weight"):
        apply(model, everywhere(examples[name], describe(model, "llama")), seed=0)


def test_no_space_of_a_quantised_study_proposes_what_it_refuses(folders):
    shapes = backbone_shapes(folders["llama"], "4bit")
    assert {name for name, _ in shapes.refusals} == {"loha", "lokr"}
    assert backbone_shapes(folders["llama"], "8bit").refusals == ()
    plan = Configuration((LayerPlan((Placement("query", Loha(2, 4.0)),)), LayerPlan()), Training(1e-3))
    with pytest.raises(ConfigurationError, match="loha on llama: stock peft reads the widths"):
        plan.validate(shapes)


def test_a_bias_that_would_be_rounded_is_refused(load, everywhere):
    model = load("4bit", precision="bf16")
    with pytest.raises(BackboneError, match="rounds a trained bias to the precision of the arithmetic"):
        apply(model, everywhere(Bias(), describe(model, "llama")), seed=0)


@pytest.mark.parametrize("name", ["lora", "dora", "ia3"])
def test_merging_is_refused_or_unpacks_first_when_it_is_told_to(load, batch, examples, everywhere, name):
    model = copy.deepcopy(load("4bit"))
    apply(model, everywhere(examples[name], describe(model, "llama")), seed=0)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.add_(0.05)
        adapted = states(model, batch)
    with pytest.raises(ConfigurationError, match=r"weights in 4bit, .* merge\(model, dequantise=True\)"):
        merge(model)
    assert parts_of(model)
    merge(model, dequantise=True)
    assert not parts_of(model)
    assert quantisation_of(model) is None
    assert not any("Linear4bit" in type(module).__name__ for module in model.modules())
    assert (states(model, batch) - adapted).abs().max() < 1e-5


def test_merging_eight_bits_keeps_what_the_weights_stand_for(load, batch, examples, everywhere):
    model = copy.deepcopy(load("8bit"))
    apply(model, everywhere(examples["lora"], describe(model, "llama")), seed=0)
    adapted = states(model, batch)
    merge(model, dequantise=True)
    assert (states(model, batch) - adapted).abs().max() < 0.1  # 8-bit arithmetic rounds its inputs, float32 does not


def test_an_adapter_is_saved_and_loaded_on_packed_weights(load, batch, examples, everywhere, tmp_path):
    model = load("4bit")
    apply(model, everywhere(examples["dora"], describe(model, "llama")), seed=0)
    try:
        with torch.no_grad():
            for parameter in adapter_parameters(model).values():
                parameter.add_(0.01)
        adapted = states(model, batch)
        save_adapter(model, tmp_path)
        remove(model)
        load_adapter(model, tmp_path)
        assert torch.equal(states(model, batch), adapted)
    finally:
        remove(model)


def test_doras_response_is_scaled_by_the_lengths_of_unpacked_rows(load, batch, everywhere):
    model = load("4bit")
    untouched = states(model, batch)
    apply(model, everywhere(Dora(2, 4.0), describe(model, "llama")), seed=0)
    try:
        with torch.no_grad():
            for parameter in adapter_parameters(model).values():
                parameter.mul_(1.5)
        with torch.no_grad(), ExitStack() as stack:
            for part in parts_of(model):
                stack.enter_context(part.suppressed(0.0))
            assert (states(model, batch) - untouched).abs().max() < 1e-4
    finally:
        remove(model)


def test_a_language_model_keeps_its_head_whole(folders):
    spec = replace(model_spec(folders["llama"]), load_in="4bit")
    model = load_language_model(spec, Stand(CPU, Regime("fp32"))).model
    assert type(model.lm_head) is torch.nn.Linear
    assert model.lm_head.weight.dtype == torch.float32
    assert type(model.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"


def test_a_new_head_is_float32_and_trains_on_a_backbone_in_bfloat16(folders):
    for pooling in ("mean", "stock"):
        spec = replace(model_spec(folders["llama"], pooling), load_in="4bit")
        classifier = load_classifier(spec, 3, False, 0, Stand(CPU, Regime("bf16")))
        assert classifier.model.get_input_embeddings().weight.dtype == torch.bfloat16
        head = classifier.head_parameters()
        assert head
        assert all(parameter.dtype == torch.float32 and parameter.requires_grad for parameter in head.values())


def test_scoring_does_not_pack_weights_anew(load, batch):
    model = load("4bit")
    before = bit_sum(model)
    with torch.inference_mode():
        states(model, batch)
    assert bit_sum(model) == before


def test_bitsandbytes_that_is_missing_is_said_with_what_to_install(folders, monkeypatch):
    monkeypatch.setattr(autopeft.adapters.quantisation, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"bitsandbytes is missing: pip install 'autopeft\[bitsandbytes\]'"):
        load_classifier(replace(model_spec(folders["llama"]), load_in="4bit"), 2, False, 0)


def test_rows_that_bitsandbytes_unpacks_wrongly_on_cpus_are_refused(tmp_path):
    hf.BertModel(hf.BertConfig(**SIZES | {"hidden_size": 32}, intermediate_size=64)).save_pretrained(tmp_path)
    with pytest.raises(
        BackboneError, match="is 32 wide, and bitsandbytes unpacks rightly there only what is a multiple"
    ):
        load_classifier(replace(model_spec(str(tmp_path)), load_in="4bit"), 2, False, 0)


def test_a_checkpoint_that_is_quantised_already_is_refused(folders, tmp_path):
    spec = replace(model_spec(folders["llama"]), load_in="4bit")
    load_language_model(spec, Stand(CPU, Regime("fp32"))).model.save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="is quantised already; give the checkpoint that it was made of"):
        model_spec(str(tmp_path))
    with pytest.raises(BackboneError, match="load_in '3bit': expected one of 4bit, 8bit"):
        model_spec(folders["llama"], load_in="3bit")


def test_part_of_a_plan_may_stand_where_nothing_is_packed(load):
    model = load("4bit", "t5")
    down = Placement("down", Lora(2, 4.0, init="pissa"))  # transformers keeps T5's wo in float32
    apply(model, Configuration((LayerPlan((down,)),) + (LayerPlan(),) * 3, Training(1e-3)), seed=0)
    remove(model)
