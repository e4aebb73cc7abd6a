"""What is read from each family, and the table of docs/methods.md."""

import os
import re
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn

from autopeft.adapters import apply
from autopeft.adapters.anatomy import describe, longest_input
from autopeft.adapters.families import FAMILIES
from autopeft.errors import ConfigurationError
from search_spaces.backbone import Backbone
from search_spaces.configuration import uniform
from search_spaces.methods import METHODS
from search_spaces.methods.lokr import Lokr
from search_spaces.methods.lora import Lora
from search_spaces.presets import DESCRIPTIONS, build

PAGE = Path(__file__).parents[3] / "docs" / "methods.md"
ROLES = {
    "modernbert": "qkv output gate_up down",
    "phi3": "qkv output gate_up down",
    "gpt2": "qkv output up down",
    "t5": "query key value output cross_query cross_key cross_value cross_output up gate down",
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma"), "query key value output up gate down"),
}


def test_every_known_family_is_in_the_zoo(zoo_family, described):
    backbone = described(zoo_family)
    assert backbone.family == zoo_family
    assert zoo_family in FAMILIES
    assert " ".join(backbone.roles) == ROLES.get(zoo_family, "query key value output up down")


def test_shapes_are_those_of_the_modules(zoo_family, make_zoo, described):
    model, backbone = make_zoo(zoo_family), described(zoo_family)
    assert Backbone.from_json(backbone.to_json()) == backbone
    assert backbone.layer_count == (4 if zoo_family == "t5" else 2)
    assert (backbone.hidden_size, backbone.head_count, backbone.head_size) == (16, 2, 8)
    assert backbone.parameter_count == sum(parameter.numel() for parameter in model.parameters())
    for shape in (shape for layer in backbone.layers for shape in layer):
        module = model.get_submodule(shape.path)
        sizes = (shape.in_features, shape.out_features)
        assert tuple(module.weight.shape) == (sizes if shape.transposed else sizes[::-1])
        assert isinstance(module, nn.Linear) != shape.transposed
        assert (module.bias is not None) == shape.bias
    for shape in (shape for layer in backbone.norms for shape in layer):
        assert model.get_submodule(shape.path).weight.shape == (shape.width,)


def test_key_heads_may_be_fewer_than_query_heads(described):
    backbone = described("llama")
    assert (backbone.head_count, backbone.key_value_head_count) == (2, 1)
    assert backbone.layer_shape(0, "attention").key_value_width == 8
    assert backbone.module(0, "key").out_features == 8


def test_norms_of_queries_and_keys_count_as_norms_of_the_layer(described):
    assert [norm.width for norm in described("qwen3").norms[0]] == [8, 8, 16, 16]
    assert [norm.bias for norm in described("llama").norms[0]] == [False, False]


def test_decoders_of_t5_have_their_cross_attention_and_its_encoders_have_none(described):
    backbone = described("t5")
    assert "cross_value" not in backbone.sites(0)
    assert "cross_value" in backbone.sites(2)
    plan = uniform(backbone, ("value", "cross_value"), Lora(1, 2.0), 1e-3)
    assert [len(layer.placements) for layer in plan.layers] == [1, 1, 2, 2]


def test_the_plain_t5_has_no_gate():
    config = transformers.T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, vocab_size=50)
    assert "gate" not in describe(transformers.T5Model(config), "t5").roles


def test_relative_positions_set_no_limit():
    assert longest_input(transformers.T5Config()) > 10**6
    assert longest_input(transformers.GPT2Config(n_positions=40)) == 40


def test_named_spaces_fit_every_family_or_say_why_not(zoo_family, described):
    backbone = described(zoo_family)
    for name in DESCRIPTIONS:
        if name.endswith("autopeft") and zoo_family == "deberta-v2":
            with pytest.raises(ConfigurationError, match="prefix on deberta-v2: its attention does not go through"):
                build(name, backbone, (1e-3, 1e-3))
        else:
            assert build(name, backbone, (1e-3, 1e-3)).size >= 1


def test_what_does_not_fit_is_refused_and_the_model_left_alone(make_zoo):
    model = make_zoo("gpt2")
    with pytest.raises(ConfigurationError, match=r"LoKr at h.0.attn.c_attn: peft's LoKr has no layer for weights kept"):
        apply(model, uniform(describe(model, "tiny"), ("qkv",), Lokr(1, 2.0), 1e-3))


@pytest.mark.parametrize("name", ["bert", "llama", "t5", "phi3"])
def test_a_family_is_described_without_weights(name, make_zoo, described):
    with torch.device("meta"):
        config = make_zoo(name).config
        model = transformers.AutoModel.from_config(config)
    assert describe(model, name) == described(name)


def table(examples, backbones, refusal):
    """The method × family table with its reasons, as it stands in docs/methods.md."""
    reasons = []
    lines = ["| family | " + " | ".join(f"`{name}`" for name in examples) + " |"]
    lines.append("|---" * (len(examples) + 1) + "|")
    for family, backbone in backbones.items():
        cells = []
        for method in examples.values():
            reason = refusal(method, backbone)
            if reason is None:
                cells.append("yes")
                continue
            text = re.sub(rf"^{method.name} at [\w.]+: |^\w+ at [\w.]+: ", "", reason)
            reason = f"`{method.name}`: {text}"
            if reason not in reasons:
                reasons.append(reason)
            cells.append(f"no ({reasons.index(reason) + 1})")
        lines.append(f"| `{family}` | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"{index}. {reason}" for index, reason in enumerate(reasons, 1))])


def test_the_table_of_the_docs_is_what_the_code_does(examples, described, refusal):
    expected = table(examples, {name: described(name) for name in FAMILIES}, refusal)
    page = PAGE.read_text(encoding="utf-8")
    start, end = "<!-- table: written by this test with WRITE_DOCS=1 -->\n", "\n<!-- end of table -->"
    before, rest = page.split(start)
    if os.environ.get("WRITE_DOCS"):
        PAGE.write_text(before + start + expected + end + rest.split(end)[1], encoding="utf-8")
        page = PAGE.read_text(encoding="utf-8")
    assert page.split(start)[1].split(end)[0] == expected


def test_every_method_and_every_file_is_on_the_page():
    page = PAGE.read_text(encoding="utf-8")
    for name in METHODS:
        assert f"`{name}`" in page
        assert f"search_spaces/methods/{name}.py" in page
