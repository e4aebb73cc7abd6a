"""Adapters of several configurations in one model: each member's rows come out as from a model with its own alone."""

import pytest
import torch

from autopeft.adapters.anatomy import describe
from autopeft.adapters.head import Classifier
from autopeft.adapters.lifting import lift
from autopeft.adapters.places import placed
from autopeft.errors import ConfigurationError
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training
from search_spaces.methods.lora import Lora
from search_spaces.methods.mola import Mola


def sounding(classifier):
    """Nothing answers zero, so that every adapter is heard."""
    with torch.no_grad():
        for name, parameter in sorted(classifier.trained_parameters().items()):
            generator = torch.Generator().manual_seed(len(name))
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def stacked_of(members):
    """Values padded with zeros to the largest shape of a name, without a table."""

    def stacked(name):
        own = [member.parameters.get(name) for member in members]
        sizes = [value.shape for value in own if value is not None]
        shape = [max(size) for size in zip(*sizes, strict=True)]
        whole = torch.zeros(len(members), *shape)
        for row, value in enumerate(own):
            if value is not None:
                whole[(row, *(slice(0, size) for size in value.shape))] = value.detach()
        return whole

    return stacked


def plans_of(backbone, methods, everywhere):
    """A plan for each method wherever it fits, by turns in all layers and in all but the lowest."""
    plans = []
    for number, method in enumerate(methods):
        plan = everywhere(method, backbone)
        if number % 2 and not plan.is_empty:
            plan = Configuration((LayerPlan(), *plan.layers[1:]), plan.training)
        plans += [] if plan.is_empty else [plan]
    return plans


def answers(model, batch):
    return model(**batch).last_hidden_state


def test_every_method_of_every_family_beside_the_others(zoo_family, make_zoo, inputs_of, everywhere, examples):
    classifier = Classifier(make_zoo(zoo_family), 2, None)
    if describe(classifier.model, "tiny").projects_positions:
        return  # leads positions, which are no rows, through adapted modules: autopeft.admission refuses it
    batch = inputs_of(zoo_family)
    methods = [method for name, method in examples.items() if name != "mola"] + [Lora(3, 1.0)]
    plans = plans_of(describe(classifier.model, "tiny"), methods, everywhere)
    bare = answers(classifier.model, batch)
    members, alone = [], []
    for plan in plans:
        classifier.adapt(plan, seed=0)
        sounding(classifier)
        alone.append(answers(classifier.model, batch))
        members.append(lift(classifier))
    assert torch.equal(answers(classifier.model, batch), bare)
    repeated = {name: value.repeat(len(plans), *[1] * (value.dim() - 1)) for name, value in batch.items()}
    with placed(classifier, members, stacked_of(members)):
        together = answers(classifier.model, repeated).chunk(len(plans))
    for plan, mine, own in zip(plans, together, alone, strict=True):
        name = next(method.name for _, _, method in plan.placements())
        assert not torch.allclose(own, bare, atol=1e-4), name
        torch.testing.assert_close(mine, own, rtol=0, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}")
    assert torch.equal(answers(classifier.model, batch), bare)


@pytest.mark.parametrize("refused", [Mola(3, 2, 4.0), Lora(2, 4.0, init="pissa")], ids=["mola", "pissa"])
def test_what_cannot_be_lifted_says_so(make_zoo, refused):
    classifier = Classifier(make_zoo("bert"), 2, None)
    rows = (LayerPlan((Placement("query", refused),)), LayerPlan())
    classifier.adapt(Configuration(rows, Training(1e-3)), seed=0)
    with pytest.raises(ConfigurationError, match="cannot be taken out whole"):
        lift(classifier)
    classifier.strip()
