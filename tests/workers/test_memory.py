"""The memory of a training step, added up."""

import torch

from autopeft.study import Fidelity
from search_spaces.configuration import Configuration, LayerPlan, Training, uniform
from search_spaces.methods.lora import Lora
from workers.backbones import load_resident
from workers.batches import training_order
from workers.memory import MemoryMeter
from workers.training import train

CPU = torch.device("cpu")


class Square(torch.nn.Module):
    """``(x w)²``: autograd keeps x (twice the input's user, once the storage), the product and the weight."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(8, 4))

    def forward(self, inputs):
        return (inputs @ self.weight).square().sum()


def test_what_autograd_keeps_is_counted_once_and_weights_once():
    model, inputs = Square(), torch.ones(16, 8)
    meter = MemoryMeter(model, CPU)
    optimizer = torch.optim.AdamW(model.parameters())
    with meter.forward_pass(noted=True):
        loss = model(inputs)
    loss.backward()
    optimizer.step()
    meter.after_step(model.parameters(), optimizer)
    weight, product, kept_inputs = 8 * 4 * 4, 16 * 4 * 4, 16 * 8 * 4
    moments_and_step = 2 * weight + 4
    assert meter.peak_bytes == weight + weight + moments_and_step + product + kept_inputs


def test_gradients_under_the_meter_are_those_without():
    gradients = []
    for widest in (False, True):
        model, inputs = Square(), torch.arange(128.0).reshape(16, 8)
        with MemoryMeter(model, CPU).forward_pass(widest):
            loss = model(inputs)
        loss.backward()
        gradients.append(model.weight.grad)
    assert torch.equal(*gradients)


def measured(make_study, plan, batch_size=8):
    study = make_study(fidelity=Fidelity(3, batch_size, 32))
    resident = load_resident(study, CPU)
    resident.classifier.adapt(plan(study), seed=1)
    meter = MemoryMeter(resident.classifier, CPU)
    train(
        resident.classifier,
        resident.train,
        training_order(resident.train.lengths, batch_size, 3, 0, 0),
        1e-2,
        meter=meter,
    )
    return meter.peak_bytes


def test_more_rows_and_lower_layers_take_more_memory(make_study):
    def everywhere(study):
        return uniform(study.backbone, study.backbone.roles, Lora(2, 4.0), 1e-2)

    def top(study):
        row = everywhere(study).layers[-1]
        return Configuration((LayerPlan(), row), Training(1e-2))

    def nothing(study):
        return Configuration((LayerPlan(),) * 2, Training(1e-2))

    figures = [measured(make_study, plan) for plan in (nothing, top, everywhere)]
    assert figures == sorted(figures)
    assert figures[0] < figures[1] < figures[2]
    assert measured(make_study, everywhere, batch_size=16) > figures[2]
