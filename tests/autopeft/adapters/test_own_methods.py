"""Serial, parallel, prefix and bias against outputs computed by hand."""

import inspect

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention, softmax

from autopeft.adapters import adapter_parameters, apply, remove
from autopeft.adapters.anatomy import describe
from autopeft.errors import BackboneError, ConfigurationError
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training, uniform
from search_spaces.methods.bias import Bias
from search_spaces.methods.lora import Lora
from search_spaces.methods.parallel import Parallel
from search_spaces.methods.prefix import Prefix
from search_spaces.methods.serial import Serial

SERIAL, PARALLEL = Placement("feed_forward", Serial(3, 1.5)), Placement("feed_forward", Parallel(5, 4.0))


def one_layer(backbone, *placements):
    rows = [LayerPlan(placements), *[LayerPlan()] * (backbone.layer_count - 1)]
    return Configuration(tuple(rows), Training(1e-3))


def randomise(model, spread=1.0):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)


def output(model, batch):
    with torch.no_grad():
        return model(**batch).last_hidden_state


def bottleneck(parameters, path, kind, scaling, hidden):
    part = {name: parameters[f"{path}.{kind}_adapter.{name}"] for name in ("down.weight", "down.bias")}
    up = {name: parameters[f"{path}.{kind}_adapter.{name}"] for name in ("up.weight", "up.bias")}
    inner = (hidden @ part["down.weight"].T + part["down.bias"]).clamp(min=0)
    return scaling * (inner @ up["up.weight"].T + up["up.bias"])


@pytest.mark.parametrize("placements", [(SERIAL,), (PARALLEL,), (SERIAL, PARALLEL)])
def test_bottlenecks_in_bert_add_what_the_equations_say(make_zoo, placements):
    model = make_zoo("bert")
    layer = model.encoder.layer[0]
    states = torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        inner = layer.output.dense(layer.intermediate(states))
    apply(model, one_layer(describe(model, "tiny"), *placements))
    randomise(model)
    parameters = adapter_parameters(model)
    with torch.no_grad():
        expected = inner
        if SERIAL in placements:
            expected = expected + bottleneck(parameters, "encoder.layer.0", "serial", 1.5, inner)
        if PARALLEL in placements:
            expected = expected + bottleneck(parameters, "encoder.layer.0", "parallel", 4.0, states)
        got = layer.output(layer.intermediate(states), states)
        assert torch.allclose(got, layer.output.LayerNorm(expected + states), atol=1e-6)


def test_bottlenecks_in_llama_add_what_the_equations_say(make_zoo):
    model = make_zoo("llama")
    states = torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        inner = model.layers[0].mlp(states)
    apply(model, one_layer(describe(model, "tiny"), SERIAL, PARALLEL))
    randomise(model)
    parameters = adapter_parameters(model)
    with torch.no_grad():
        expected = inner + bottleneck(parameters, "layers.0", "serial", 1.5, inner)
        expected = expected + bottleneck(parameters, "layers.0", "parallel", 4.0, states)
        assert torch.allclose(model.layers[0].mlp(states), expected, atol=1e-5)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_a_prefix_in_bert_is_attended_to_as_the_equation_says(make_zoo, implementation):
    model = make_zoo("bert")
    model.set_attn_implementation(implementation)
    attention = model.encoder.layer[0].attention.self
    apply(model, one_layer(describe(model, "tiny"), Placement("attention", Prefix(3))))
    randomise(model)
    states = torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        heads = [linear(states).view(2, 4, 2, 8).transpose(1, 2) for linear in (attention.query, attention.key)]
        value = attention.value(states).view(2, 4, 2, 8).transpose(1, 2)
        before = [p.view(3, 2, 8).transpose(0, 1).expand(2, -1, -1, -1) for p in attention.prefix.parameters()]
        query, key = heads[0], torch.cat([before[0], heads[1]], dim=2)
        scores = softmax(query @ key.transpose(2, 3) / 8**0.5, dim=-1)
        expected = (scores @ torch.cat([before[1], value], dim=2)).transpose(1, 2).reshape(2, 4, 16)
        assert torch.allclose(attention(states)[0], expected, atol=1e-6)
        assert torch.allclose(
            scaled_dot_product_attention(query, key, torch.cat([before[1], value], dim=2)).transpose(1, 2).flatten(2),
            expected,
            atol=1e-6,
        )


PREFIXABLE = [
    *("bert", "roberta", "distilbert", "electra", "modernbert", "opt", "t5", "vit"),
    *("llama", "mistral", "qwen2", "qwen3", "gemma", "phi3", "gpt2"),
]


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", PREFIXABLE)
def test_a_prefix_leaves_padding_and_causality_as_they_were(make_zoo, inputs_of, name, implementation):
    model = make_zoo(name)
    model.set_attn_implementation(implementation)
    batch = inputs_of(name)
    before = output(model, batch)
    plan = uniform(describe(model, name), ("attention",), Prefix(2), 1e-3)
    apply(model, plan, seed=0)
    randomise(model)
    assert model.config._attn_implementation == f"autopeft_prefix_{implementation}"
    got = output(model, batch)
    assert (got - before).abs().max() > 1e-4, "the prefix was never attended to"
    if "attention_mask" in batch:
        alone = {key: value[2:, :6] for key, value in batch.items()}
        assert (got[2:, :6] - output(model, alone)).abs().max() <= 1e-5
    if name in ("llama", "mistral", "qwen2", "qwen3", "gemma", "phi3", "gpt2", "opt"):
        shorter = {key: value[:2, :7] for key, value in batch.items()}
        assert (got[:2, :7] - output(model, shorter)).abs().max() <= 1e-5
        without_mask = {"input_ids": batch["input_ids"][:2]}
        assert (got[:2] - output(model, without_mask)).abs().max() <= 1e-5
    remove(model)
    assert model.config._attn_implementation == implementation
    assert torch.equal(output(model, batch), before)


def test_each_layer_has_a_prefix_of_its_own_length(make_zoo):
    model = make_zoo("llama")
    rows = tuple(LayerPlan((Placement("attention", Prefix(length)),)) for length in (2, 7))
    apply(model, Configuration(rows, Training(1e-3)))
    assert [tuple(layer.self_attn.prefix.key.shape) for layer in model.layers] == [(2, 8), (7, 8)]


def test_a_prefix_generates_from_a_cache_as_without_one(make_zoo):
    model = make_zoo("llama")
    apply(model, uniform(describe(model, "tiny"), ("attention",), Prefix(2), 1e-3), seed=0)
    randomise(model)
    ids = torch.randint(5, 50, (1, 8), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = model(input_ids=ids).last_hidden_state
        first = model(input_ids=ids[:, :5], use_cache=True)
        # transformers 5.24 has another name for it
        name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
        rest = [first.last_hidden_state]
        for position in range(5, 8):
            step = model(input_ids=ids[:, position : position + 1], **{name: first[name]})
            rest.append(step.last_hidden_state)
    assert (torch.cat(rest, dim=1) - whole).abs().max() <= 1e-5


def test_a_prefix_needs_an_attention_that_goes_through_the_registry(make_zoo, described):
    model = make_zoo("deberta-v2")
    plan = uniform(described("bert"), ("attention",), Prefix(2), 1e-3)
    with pytest.raises(ConfigurationError, match="prefix on deberta-v2: its attention does not go through"):
        apply(model, plan)
    llama = make_zoo("llama")
    llama.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(BackboneError, match="runs as 'flash_attention_2'; load it with attn_implementation='sdpa'"):
        apply(llama, uniform(describe(llama, "tiny"), ("attention",), Prefix(2), 1e-3))
    assert not adapter_parameters(llama)


def test_a_trained_bias_is_the_modules_own_also_below_lora(make_zoo):
    model = make_zoo("bert")
    query = model.encoder.layer[0].attention.self.query
    pretrained = query.bias
    apply(model, one_layer(describe(model, "tiny"), Placement("query", Bias()), Placement("query", Lora(1, 2.0))))
    names = set(adapter_parameters(model))
    assert "encoder.layer.0.attention.self.query.bias" in names
    assert "encoder.layer.0.attention.self.query.lora_A.weight" in names
    assert query.bias is not pretrained
    assert torch.equal(query.bias, pretrained)
    remove(model)
    assert model.encoder.layer[0].attention.self.query.bias is pretrained
