"""Peft's LoRA layers, computed in place: what peft computes, its gradients, and where peft does it itself."""

import copy

import peft
import pytest
import torch
from torch import nn

from autopeft.adapters.products import _Product, quicken

NAME = "autopeft"


def layers(bias: bool = True, **options) -> tuple[nn.Module, nn.Module]:
    """The same peft layer twice, 6 → 10; the second is quickened."""
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(6, 10, bias=bias))
    settings = {"r": 3, "lora_alpha": 5, "init_lora_weights": False, "target_modules": ["0"]} | options
    model = peft.tuners.lora.LoraModel(inner, peft.LoraConfig(**settings), NAME).model.eval()
    quick = copy.deepcopy(model)
    quicken(quick)
    return model[0], quick[0]


def gradients(layer: nn.Module, hidden: torch.Tensor) -> list[torch.Tensor]:
    """Of the squared answer: of the input, if it wants one, and of all that is trained."""
    wanted = [*([hidden] if hidden.requires_grad else []), *(p for p in layer.parameters() if p.requires_grad)]
    return list(torch.autograd.grad(layer(hidden).square().sum(), wanted))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("wants", [True, False])
@pytest.mark.parametrize("shape", [(7, 6), (2, 5, 6)])
def test_answers_and_gradients_are_pefts(bias, wants, shape):
    stock, quick = layers(bias)
    hidden = torch.randn(shape, requires_grad=wants)
    assert torch.allclose(quick(hidden), stock(hidden), atol=1e-6)
    expected, found = gradients(stock, hidden), gradients(quick, hidden)
    assert len(expected) == len(found) == 2 + wants
    for one, other in zip(expected, found, strict=True):
        assert torch.allclose(one, other, atol=1e-4, rtol=1e-5)


def test_the_quick_way_is_taken_and_the_gradient_is_that_of_finite_differences():
    _, quick = layers()
    assert "_Product" in type(quick(torch.randn(2, 3, 6)).grad_fn).__name__
    quick.double()  # which peft answers, so the product is asked itself
    base, low, high = quick.base_layer, quick.lora_A[NAME].weight, quick.lora_B[NAME].weight
    hidden = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    base.requires_grad_(False)
    assert torch.autograd.gradcheck(
        lambda *given: _Product.apply(given[0], base.weight, base.bias, *given[1:], 1.5), (hidden, low, high)
    )


def test_what_is_frozen_gets_no_gradient():
    _, quick = layers()
    quick.lora_A[NAME].requires_grad_(False)
    quick(torch.randn(4, 6)).sum().backward()
    assert quick.lora_A[NAME].weight.grad is None
    assert quick.base_layer.weight.grad is None
    assert quick.lora_B[NAME].weight.grad is not None


def tensor_scaling(layer):
    layer.scaling[NAME] = torch.tensor(0.3)


def a_hook(layer):
    layer.base_layer.register_forward_hook(lambda _module, _inputs, output: 2 * output)


def trained_bias(layer):
    layer.base_layer.bias.requires_grad_(True)


CHANGES = {
    "a learned scaling": tensor_scaling,
    "a hook on the frozen module": a_hook,
    "a bias that trains": trained_bias,
    "double precision": lambda layer: layer.double(),
    "adapters off": lambda layer: layer.enable_adapters(False),
    "merged": lambda layer: layer.merge(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_more_than_plain_lora_is_left_to_peft(change):
    stock, quick = layers()
    change(stock)
    change(quick)
    hidden = torch.randn(4, 6, dtype=stock.base_layer.weight.dtype)
    assert torch.equal(quick(hidden), stock(hidden))


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_bias": True}, {"lora_dropout": 0.5}])
def test_variants_are_left_to_peft(options):
    stock, quick = layers(**options)
    hidden, answers = torch.randn(4, 6), []
    for layer in (stock.train(), quick.train()):
        torch.manual_seed(3)
        answers.append(layer(hidden))
    assert torch.equal(*answers)


def test_autocast_is_left_to_peft():
    stock, quick = layers()
    hidden = torch.randn(4, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert quick(hidden).dtype is torch.bfloat16
        assert torch.equal(quick(hidden), stock(hidden))
