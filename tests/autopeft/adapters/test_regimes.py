"""Layers computed anew, weights in bfloat16, device maps and fused kernels: the same model, computed otherwise."""

import importlib.util

import pytest
import torch
from transformers import AutoModel, LlamaConfig

from autopeft.adapters import adapter_parameters, apply, remove
from autopeft.adapters.anatomy import describe
from autopeft.adapters.kernels import fuse, require_liger
from autopeft.adapters.models import load_classifier, model_spec
from autopeft.adapters.recomputing import recompute_layers
from autopeft.adapters.replay import refusal
from autopeft.adapters.weights import Stand, is_spread
from autopeft.errors import ConfigurationError
from autopeft.regime import Regime
from search_spaces.memory import Workload, training_memory
from search_spaces.quantisation import frozen_bytes
from workers.memory import MemoryMeter
from workers.training import precision

CPU = torch.device("cpu")
SOME = ("llama", "opt", "bert", "t5", "deberta-v2")


def gradients(model, plan, batch):
    apply(model, plan, seed=0)
    try:
        parameters = adapter_parameters(model)
        with torch.no_grad():
            for parameter in parameters.values():
                parameter.add_(0.01)
        meter = MemoryMeter(model, CPU)
        with meter.forward_pass(noted=True):
            states = model(**batch).last_hidden_state
        states.square().mean().backward()
        found = {name: parameter.grad.clone() for name, parameter in parameters.items()}
        return states.detach(), found, meter.saved_bytes
    finally:
        remove(model)


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("kind", ["lora", "mola", "prefix", "serial"])
def test_layers_computed_anew_give_the_same_states_and_gradients(name, kind, make_zoo, inputs_of, everywhere, examples):
    model, batch = make_zoo(name), inputs_of(name)
    if getattr(model.config, "use_cache", False):
        model.config.use_cache = False
    plan = everywhere(examples[kind], describe(model, name))
    if plan.is_empty:
        pytest.skip(f"{kind} stands nowhere in {name}")
    states, kept, saved = gradients(model, plan, batch)
    recompute_layers(model)
    assert not model.training
    again, anew, less = gradients(model, plan, batch)
    assert torch.equal(states, again)
    assert all(torch.allclose(kept[key], anew[key], rtol=1e-5, atol=1e-7) for key in kept)
    assert less < saved


def test_without_gradients_nothing_is_computed_twice(make_zoo, inputs_of):
    model = make_zoo("bert")
    recompute_layers(model)
    calls = []
    model.encoder.layer[0].attention.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        model(**inputs_of("bert"))
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["llama", "bert", "gpt2"])
@pytest.mark.parametrize("kind", ["lora", "dora", "ia3", "mola"])
def test_adapters_on_weights_in_bfloat16_stay_in_float32_and_take_what_is_predicted(
    name, kind, make_zoo, inputs_of, everywhere, examples
):
    model, batch = make_zoo(name).to(torch.bfloat16), inputs_of(name)
    if getattr(model.config, "use_cache", False):
        model.config.use_cache = False
    backbone = describe(model, name)
    plan = everywhere(examples[kind], backbone)
    if plan.is_empty:
        pytest.skip(f"{kind} stands nowhere in {name}")
    apply(model, plan, seed=0)
    parameters = adapter_parameters(model)
    assert all(parameter.dtype == torch.float32 for parameter in parameters.values())
    meter, optimizer = MemoryMeter(model, CPU), torch.optim.AdamW(parameters.values())
    with torch.autocast("cpu", torch.bfloat16), meter.forward_pass(noted=True):
        states = model(**batch).last_hidden_state
    states.float().square().mean().backward()
    optimizer.step()
    meter.after_step(parameters.values(), optimizer)
    assert all(parameter.grad is not None for parameter in parameters.values())
    peak = training_memory(plan, backbone, Workload(3, 10, head="none", precision="bfloat16", weight_bytes=2))
    # at these widths the routers of experts weigh much, and are taken to be float32
    assert peak.held == pytest.approx(meter.peak_bytes, rel=0.2 if kind == "mola" else 0.1)


def test_the_arithmetic_is_the_regimes_and_not_the_devices(checkpoint):
    spec = model_spec(str(checkpoint("bert")), "mean")
    for name, half in ((None, False), ("fp32", False), ("mixed", True), ("bf16", True)):
        classifier = load_classifier(spec, 2, False, 0, Stand(CPU, Regime(name)))
        with precision(classifier):
            assert torch.is_autocast_enabled("cpu") is half
        kind = classifier.model.get_input_embeddings().weight.dtype
        assert kind == (torch.bfloat16 if name == "bf16" else torch.float32)
        assert all(parameter.dtype == torch.float32 for parameter in classifier.head_parameters().values())


def test_a_device_map_to_one_cpu_computes_the_same(checkpoint, inputs):
    pytest.importorskip("accelerate", reason="device maps need accelerate: pip install 'autopeft[bitsandbytes]'")
    folder = str(checkpoint("bert"))
    plain = AutoModel.from_pretrained(folder, dtype=torch.float32)
    mapped = AutoModel.from_pretrained(folder, dtype=torch.float32, device_map={"": "cpu"})
    assert not is_spread(mapped)
    with torch.no_grad():
        assert torch.equal(plain(**inputs).last_hidden_state, mapped(**inputs).last_hidden_state)


def test_a_model_on_several_devices_is_not_run_from_the_middle(make_zoo):
    model = make_zoo("llama")
    assert refusal(model) is None
    model.hf_device_map = {"layers.0": 0, "layers.1": 1}
    assert is_spread(model)
    assert refusal(model) == "several devices hold the layers between them"


def test_liger_that_cannot_run_here_is_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr("autopeft.adapters.kernels.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"liger_kernel and triton missing: pip install 'autopeft\[liger\]'"):
        require_liger()
    monkeypatch.setattr("autopeft.adapters.kernels.find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigurationError, match="sees no GPU, for which they are compiled; leave --kernels out"):
        require_liger()


@pytest.mark.skipif(
    not torch.cuda.is_available() or importlib.util.find_spec("liger_kernel") is None,
    reason="Liger's kernels are compiled by Triton for a GPU, and there is none here",
)
def test_ligers_kernels_compute_the_same(make_zoo, inputs_of):
    model = make_zoo("llama").to("cuda")
    batch = {name: tensor.to("cuda") for name, tensor in inputs_of("llama").items()}
    with torch.no_grad():
        plain = model(**batch).last_hidden_state
        fuse(model)
        assert (model(**batch).last_hidden_state - plain).abs().max() < 1e-5


def test_published_shapes_are_described_without_weights():
    config = LlamaConfig(
        hidden_size=4096,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        intermediate_size=14336,
        vocab_size=128_256,
    )
    with torch.device("meta"):
        backbone = describe(AutoModel.from_config(config), "Llama-3-8B")
    assert backbone.parameter_count == 8_030_261_248 - 128_256 * 4096
    assert (backbone.head_count, backbone.key_value_head_count, backbone.head_size) == (32, 8, 128)
    assert (
        frozen_bytes(backbone, 2, "4bit", 128_256 * 4096) == 5_702_540_160
    )  # 32 × 112,520,668 packed, 1,050,939,392 others in two bytes
