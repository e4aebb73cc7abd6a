"""A run that begins at a later layer, with the states that entered it, gives what a full run gives."""

import pytest
import torch
import transformers as hf

from autopeft.adapters.anatomy import describe
from autopeft.adapters.plan import apply, remove
from autopeft.adapters.replay import refusal, replaying, states_entering
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training

TWO = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 50,
    "max_position_embeddings": 40,
}
DEBERTA = {**TWO, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8}
VARIANTS = {
    "deberta with a convolution": lambda: hf.DebertaV2Model(
        hf.DebertaV2Config(
            **DEBERTA, num_hidden_layers=3, conv_kernel_size=3, conv_act="gelu", norm_rel_ebd="layer_norm"
        )
    ),
    "electra of one width": lambda: hf.ElectraModel(hf.ElectraConfig(**TWO, num_hidden_layers=3, embedding_size=16)),
    "qwen2 with sliding layers": lambda: hf.Qwen2Model(
        hf.Qwen2Config(
            **TWO,
            num_hidden_layers=4,
            num_key_value_heads=1,
            use_sliding_window=True,
            sliding_window=3,
            layer_types=["full_attention", "sliding_attention", "full_attention", "sliding_attention"],
        )
    ),
    "modernbert of four layers": lambda: hf.ModernBertModel(
        hf.ModernBertConfig(
            **TWO,
            num_hidden_layers=4,
            pad_token_id=1,
            bos_token_id=0,
            eos_token_id=2,
            cls_token_id=0,
            sep_token_id=2,
            global_attn_every_n_layers=3,
            local_attention=4,
        )
    ),
    "opt with projections": lambda: hf.OPTModel(
        hf.OPTConfig(
            hidden_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            ffn_dim=32,
            word_embed_proj_dim=8,
            vocab_size=50,
            max_position_embeddings=40,
            do_layer_norm_before=False,
        )
    ),
}


def real(model, inputs, states):
    """The states with zeros where a row is padded, as they are kept."""
    mask = inputs.get("attention_mask")
    return states if mask is None else states * mask.unsqueeze(-1)


def compared(model, inputs, layer):
    """Largest difference, in tokens that are no padding, of the replay to the full run."""
    with torch.no_grad():
        full = model(**inputs).last_hidden_state
        with replaying(model, layer, real(model, inputs, states_entering(model, layer, inputs))):
            found = model(**inputs).last_hidden_state
        again = model(**inputs).last_hidden_state
    assert torch.equal(full, again)
    return real(model, inputs, found - full).abs().max()


def test_every_family_can_begin_at_every_layer_or_says_why_not(make_zoo, inputs_of, zoo_family):
    model, inputs = make_zoo(zoo_family), inputs_of(zoo_family)
    if zoo_family == "t5":
        assert "two stacks" in refusal(model)
        return
    assert refusal(model) is None
    assert max(compared(model, inputs, layer) for layer in (1, 2)) <= 1e-6


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_differs_between_layers_comes_out_right(variant, inputs_of):
    torch.manual_seed(0)
    model = VARIANTS[variant]().eval()
    for layer in range(1, model.config.num_hidden_layers + 1):
        assert compared(model, inputs_of("bert"), layer) <= 1e-6


def test_what_cannot_be_taken_apart_is_refused(inputs_of):
    lone = hf.DebertaV2Model(hf.DebertaV2Config(**DEBERTA, num_hidden_layers=1, conv_kernel_size=3))
    assert "one layer" in refusal(lone)
    deep = VARIANTS["deberta with a convolution"]()
    deep.z_steps = 2
    assert "z_steps" in refusal(deep)


@pytest.mark.parametrize("method_name", ["lora", "ia3", "serial", "parallel", "prefix", "bias", "norm", "dora"])
def test_adapters_above_get_the_same_output_and_gradients(make_zoo, inputs_of, zoo_family, examples, method_name):
    model, inputs = make_zoo(zoo_family), inputs_of(zoo_family)
    backbone, method = describe(model, zoo_family), examples[method_name]
    sites = [site for site in backbone.sites(1) if site in method.sites]
    if refusal(model) or method_name in dict(backbone.refusals) or not sites:
        pytest.skip("nothing to compare")
    if method_name == "bias" and not next(m.bias for m in backbone.layers[1] if m.role == sites[-1]):
        pytest.skip("no bias there")
    plan = Configuration((LayerPlan(), LayerPlan((Placement(sites[-1], method),))), Training(1e-3))
    states = real(model, inputs, states_entering(model, 1, inputs))
    apply(model, plan, seed=3)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4)) * 0.1)

    def gradients():
        model.zero_grad()
        output = real(model, inputs, model(**inputs).last_hidden_state)
        output.square().sum().backward()
        return [output.detach(), *(parameter.grad.clone() for parameter in trained)]

    full = gradients()
    with replaying(model, 1, states):
        replayed = gradients()
    for ours, theirs in zip(replayed, full, strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * max(1.0, float(theirs.abs().max()))
    remove(model)


def test_nothing_below_the_first_trained_weight_is_kept_for_the_backward_pass(make_zoo, inputs_of, examples):
    """Without states too: frozen layers build no graph, so there is nothing to switch off."""
    model = make_zoo("bert")
    apply(
        model, Configuration((LayerPlan(), LayerPlan((Placement("query", examples["lora"]),))), Training(1e-3)), seed=0
    )
    seen = []
    model.encoder.layer[0].register_forward_hook(lambda _m, _i, output: seen.append(output.requires_grad))
    model.encoder.layer[1].register_forward_hook(lambda _m, _i, output: seen.append(output.requires_grad))
    model(**inputs_of("bert"))
    assert seen == [False, True]
