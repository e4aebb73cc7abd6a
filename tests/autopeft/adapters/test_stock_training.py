"""Stock methods train step by step like a stock peft model from the same start."""

import copy

import peft
import pytest
import torch

from autopeft.adapters import adapter_parameters, apply
from autopeft.adapters.anatomy import describe
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training, uniform
from search_spaces.methods.dora import Dora
from search_spaces.methods.hira import Hira
from search_spaces.methods.ia3 import Ia3
from search_spaces.methods.loha import Loha
from search_spaces.methods.lokr import Lokr
from search_spaces.methods.lora import Lora
from search_spaces.methods.norm import Norm
from search_spaces.methods.oft import Oft
from search_spaces.methods.vera import Vera

AT = ["query", "value", "output.dense"]
SITES = ("query", "value", "output", "down")
NORMS = ["attention.output.LayerNorm", "output.LayerNorm"]
STOCK = {
    "lora": (Lora(2, 4.0), lambda: peft.LoraConfig(r=2, lora_alpha=4, target_modules=AT)),
    "rank-stabilised": (
        Lora(4, 4.0, "rank-stabilised"),
        lambda: peft.LoraConfig(r=4, lora_alpha=4, target_modules=AT, use_rslora=True),
    ),
    **{
        init: (
            Lora(2, 4.0, init=init),
            lambda init=init: peft.LoraConfig(r=2, lora_alpha=4, target_modules=AT, init_lora_weights=init),
        )
        for init in ("pissa", "olora", "orthogonal")
    },
    "dora": (Dora(2, 4.0), lambda: peft.LoraConfig(r=2, lora_alpha=4, target_modules=AT, use_dora=True)),
    "ia3": (Ia3(), lambda: peft.IA3Config(target_modules=["query", "value"], feedforward_modules=[])),
    "hira": (Hira(2), lambda: peft.HiraConfig(r=2, target_modules=AT)),
    "loha": (Loha(2, 4.0), lambda: peft.LoHaConfig(r=2, alpha=4, target_modules=AT)),
    "lokr": (Lokr(2, 4.0), lambda: peft.LoKrConfig(r=2, alpha=4, target_modules=AT)),
    "vera": (Vera(3), lambda: peft.VeraConfig(r=3, target_modules=AT)),
    "oft": (Oft(4), lambda: peft.OFTConfig(r=0, oft_block_size=4, target_modules=AT)),
    "norm": (Norm(), lambda: peft.LNTuningConfig(target_modules=[f"layer.{i}.{n}" for i in (0, 1) for n in NORMS])),
}


def losses(model, parameters, batch, steps=10):
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.01)
    wanted = torch.sin(torch.arange(16) * 2.0)
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (model(**batch).last_hidden_state - wanted).square().mean()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def stock_parameters(model):
    """Trained parameters by their names without what peft puts around them."""
    return {
        name.removeprefix("base_model.model.").replace(".default.", ".").removesuffix(".default"): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning")
@pytest.mark.parametrize("name", STOCK)
def test_ten_steps_are_those_of_stock_peft(name, make_zoo, inputs_of):
    method, make_config = STOCK[name]
    model, reference = make_zoo("bert"), make_zoo("bert")
    sites = ("norms",) if name == "norm" else SITES[:2] if name == "ia3" else SITES
    apply(model, uniform(describe(model, "tiny"), sites, method, 1e-2), seed=0)
    torch.manual_seed(0)
    stock = peft.get_peft_model(reference, make_config()).eval()
    ours, theirs = adapter_parameters(model), stock_parameters(stock)
    assert set(ours) == set(theirs)
    for key, parameter in ours.items():
        if name in ("pissa", "olora"):
            assert torch.allclose(parameter, theirs[key], atol=1e-6)
        with torch.no_grad():
            theirs[key].copy_(parameter)
    if name in ("pissa", "olora", "orthogonal"):
        weights = dict(model.named_parameters())
        for key, weight in stock.get_base_model().named_parameters():
            if key.endswith("base_layer.weight"):
                assert torch.allclose(weight, weights[key], atol=1e-6)
    batch = inputs_of("bert")
    got, expected = (losses(m, p.values(), batch) for m, p in ((model, ours), (stock, theirs)))
    assert max(abs(a - b) for a, b in zip(got, expected, strict=True)) <= 1e-6
    assert got[-1] != got[0]


def test_methods_beside_each_other_train_as_if_alone(make_zoo, inputs_of):
    """A second injection must not silence the first: LoRA in layer 0 gets the gradient that it gets without layer 1."""
    row = LayerPlan((Placement("query", Lora(2, 4.0)),))
    later = LayerPlan(
        (
            Placement("query", Lora(2, 4.0, init="pissa")),
            Placement("key", Dora(2, 4.0)),
            Placement("value", Hira(1)),
            Placement("output", Vera(2)),
            Placement("up", Hira(2)),
            Placement("down", Oft(4)),
        )
    )
    gradients = []
    for second in (LayerPlan(), later):
        model = make_zoo("bert")
        apply(model, Configuration((row, second), Training(1e-3)), seed=0)
        with torch.no_grad():
            for name, parameter in adapter_parameters(model).items():
                if "layer.0." in name:
                    parameter.copy_(torch.linspace(-0.1, 0.1, parameter.numel()).view_as(parameter))
        losses(model, adapter_parameters(model).values(), inputs_of("bert"), steps=1)
        gradients.append(
            {name: p.grad.clone() for name, p in adapter_parameters(model).items() if ".layer.0." in f".{name}"}
        )
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-6), name


def test_a_plan_in_a_copy_of_the_model_leaves_the_original_alone(make_zoo):
    model = make_zoo("bert")
    twin = copy.deepcopy(model)
    apply(twin, uniform(describe(twin, "tiny"), SITES, Lora(2, 4.0, init="pissa"), 1e-3), seed=0)
    assert not adapter_parameters(model)
    assert torch.equal(
        model.encoder.layer[0].output.dense.weight, make_zoo("bert").encoder.layer[0].output.dense.weight
    )
