"""Packed weights and training memory of published models, held against arithmetic written by hand."""

from dataclasses import replace

import pytest

from search_spaces.backbone import Backbone, ModuleShape, NormShape
from search_spaces.configuration import Configuration, LayerPlan, Training, uniform
from search_spaces.errors import ConfigurationError
from search_spaces.memory import Workload, training_memory
from search_spaces.methods.lora import Lora
from search_spaces.quantisation import frozen_bytes, packed_bytes

ROWS, TOKENS, RANK = 2, 1024, 8


def decoder(name, family, layers, hidden, inner, heads, shared, vocabulary, bias=False):
    """A decoder with heads of 128 and its parameters as the published sizes give them, without its output layer."""
    narrow = 128 * shared

    def row(layer):
        at = f"layers.{layer}"
        sizes = {"query": (hidden, hidden), "key": (hidden, narrow), "value": (hidden, narrow)}
        attention = [ModuleShape(r, f"{at}.self_attn.{r[0]}_proj", i, o, bias) for r, (i, o) in sizes.items()]
        attention.append(ModuleShape("output", f"{at}.self_attn.o_proj", hidden, hidden, bias=False))
        inside = [ModuleShape(r, f"{at}.mlp.{r}_proj", hidden, inner, bias=False) for r in ("up", "gate")]
        return (*attention, *inside, ModuleShape("down", f"{at}.mlp.down_proj", inner, hidden, bias=False))

    norms = tuple(
        tuple(NormShape(f"layers.{layer}.{n}", hidden, bias=False) for n in ("input", "post"))
        for layer in range(layers)
    )
    linear = 2 * hidden * hidden + 2 * hidden * narrow + 3 * hidden * inner
    biases = hidden + 2 * narrow if bias else 0
    count = vocabulary * hidden + layers * (linear + biases + 2 * hidden) + hidden
    shapes = tuple(row(layer) for layer in range(layers))
    return Backbone(name, family, hidden, count, shapes, norms, heads, shared, 128, inner)


LLAMA_2 = decoder("Llama-2-7B", "llama", 32, 4096, 11008, 32, 32, 32_000)
LLAMA_3 = decoder("Llama-3-8B", "llama", 32, 4096, 14336, 32, 8, 128_256)
QWEN = decoder("Qwen2.5-7B", "qwen2", 28, 3584, 18944, 28, 4, 152_064, bias=True)
PUBLISHED = {  # parameters as the model cards' safetensors say, vocabulary × width of the output layer among them
    "Llama-2-7B": (LLAMA_2, 6_738_415_616, 32_000),
    "Llama-3-8B": (LLAMA_3, 8_030_261_248, 128_256),
    "Qwen2.5-7B": (QWEN, 7_615_616_512, 152_064),
}
models = pytest.mark.parametrize("name", PUBLISHED)


def work_of(name, **fields):
    backbone, _, vocabulary = PUBLISHED[name]
    others = vocabulary * backbone.hidden_size
    usual = {"outputs": vocabulary, "other_parameters": others, "precision": "bfloat16", "weight_bytes": 2}
    return Workload(ROWS, TOKENS, "language", **usual | fields)


def lora_on(backbone):
    return uniform(backbone, ("query", "value"), Lora(RANK, 16.0), 1e-4)


@models
def test_frozen_weights_are_the_published_parameters_times_their_bytes(name):
    backbone, published, vocabulary = PUBLISHED[name]
    assert backbone.parameter_count + vocabulary * backbone.hidden_size == published
    others = published - backbone.parameter_count
    assert frozen_bytes(backbone, 4, None, others) == 4 * published
    assert frozen_bytes(backbone, 2, None, others) == 2 * published


def test_llama_2_in_four_bits_is_what_is_counted_by_hand():
    square = 8_388_608 + 262_144 + 4 * 1024 + 1092  # 4096 × 4096: half a byte each, a scale a 64, one of those a 256
    oblong = 22_544_384 + 704_512 + 4 * 2752 + 1092  # 4096 × 11008
    assert packed_bytes(LLAMA_2.module(0, "query"), "4bit") == square
    assert packed_bytes(LLAMA_2.module(0, "down"), "4bit") == oblong
    linear = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    rest = 6_738_415_616 - linear
    assert frozen_bytes(LLAMA_2, 2, "4bit", 131_072_000) == 32 * (4 * square + 3 * oblong) + 2 * rest == 3_865_836_416
    eight = linear + 4 * 32 * (4 * 4096 + 2 * 11008 + 4096)
    assert frozen_bytes(LLAMA_2, 2, "8bit", 131_072_000) == eight + 2 * rest


@models
def test_four_bits_are_a_little_more_than_half_a_byte_a_weight(name):
    backbone, _, _ = PUBLISHED[name]
    packed = sum(packed_bytes(module, "4bit") for row in backbone.layers for module in row)
    weights = sum(module.in_features * module.out_features for row in backbone.layers for module in row)
    assert 4.12 < 8 * packed / weights < 4.14  # arXiv 2305.14314, section 3: 0.127 bits of scales a weight


@models
def test_adapters_gradients_and_moments_are_in_float32_whatever_the_weights_are(name):
    backbone, _, _ = PUBLISHED[name]
    h, narrow = backbone.hidden_size, 128 * backbone.key_value_head_count
    trained = backbone.layer_count * RANK * ((h + h) + (h + narrow))
    for fields in ({}, {"quantisation": "4bit"}, {"precision": "float32", "weight_bytes": 4}):
        peak = training_memory(lora_on(backbone), backbone, work_of(name, **fields))
        assert (peak.trained, peak.gradients, peak.optimizer) == (4 * trained, 4 * trained, 8 * trained)


@models
def test_activations_in_bfloat16_are_what_is_counted_by_hand(name):
    backbone, _, _ = PUBLISHED[name]
    h, inner, heads = backbone.hidden_size, backbone.intermediate_size, backbone.head_count
    norm = 4 * h + 4  # its input in float32, and a factor
    lora = 2 * (2 * h + 2 * RANK)  # query and value each read a copy of their own and keep A x
    attention = 2 * 4 * h + 4 * heads  # query, key, value (heads that are shared are repeated), result; sums
    swiglu = 2 * 3 * inner  # gate, its activation, up
    mask = 2 * ROWS * TOKENS * TOKENS
    layer = ROWS * TOKENS * (2 * norm + lora + attention + swiglu) + mask
    turned = 2 * 4 * TOKENS * 128  # cosine and sine, shared by all layers
    by_hand = (
        backbone.layer_count * layer + turned
    )  # no gradient enters the first norm, but there is one after the last
    for fields in ({}, {"quantisation": "4bit"}):
        peak = training_memory(lora_on(backbone), backbone, work_of(name, **fields))
        assert peak.activations == by_hand
    assert peak.loss == 4 * ROWS * (TOKENS - 1) * PUBLISHED[name][2]


@models
def test_in_float32_the_same_is_kept_in_full_width(name):
    backbone, _, _ = PUBLISHED[name]
    h, inner, heads = backbone.hidden_size, backbone.intermediate_size, backbone.head_count
    norm, lora = 4 * h + 4, 4 * (h + 2 * RANK)  # query and value read the same tensor
    layer = ROWS * TOKENS * (2 * norm + lora + 4 * 4 * h + 4 * heads + 4 * 3 * inner) + 4 * ROWS * TOKENS * TOKENS
    turned = 2 * 4 * TOKENS * 128
    peak = training_memory(lora_on(backbone), backbone, work_of(name, precision="float32", weight_bytes=4))
    assert peak.activations == backbone.layer_count * layer + turned


@models
def test_layers_computed_anew_keep_their_input_and_one_layer_at_a_time(name):
    backbone, _, _ = PUBLISHED[name]
    kept, again = (
        training_memory(lora_on(backbone), backbone, work_of(name, checkpointed=checkpointed, said_tokens=64))
        for checkpointed in (False, True)
    )
    one = (kept.activations - 2 * 4 * TOKENS * 128) / backbone.layer_count
    entries = (backbone.layer_count + 1) * 2 * ROWS * TOKENS * backbone.hidden_size
    assert again.activations == pytest.approx(entries + one, rel=0.02)


def test_nothing_trained_takes_the_packed_weights_alone():
    nothing = Configuration((LayerPlan(),) * 32, Training(1e-3))
    peak = training_memory(nothing, LLAMA_2, work_of("Llama-2-7B", quantisation="4bit"))
    assert peak.total == 3_865_836_416


def test_an_unknown_quantisation_is_refused():
    with pytest.raises(ConfigurationError, match="quantisation"):
        replace(work_of("Llama-2-7B"), quantisation="2bit")
