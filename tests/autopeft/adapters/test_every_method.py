"""Checks C1 to C6 for every method on every family that can take it."""

import hashlib
import itertools

import pytest
import torch
from safetensors.torch import load_file

from autopeft.adapters import TrainingRows, adapter_parameters, apply, load_adapter, merge, remove, save_adapter
from autopeft.adapters.anatomy import describe
from autopeft.errors import ConfigurationError
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training
from search_spaces.cost import stored_bytes, stored_elements, trainable_parameters
from search_spaces.methods import ADDED_UPDATES, METHODS

NOT_IDENTITY = {"prefix"}
MORE_FAMILIES = ("llama", "gpt2", "t5")
WITH_EVERY_INITIALISATION = ("bert", *MORE_FAMILIES)


class Trial:
    """A plan in a model, with what C1 to C6 ask."""

    def __init__(self, model, plan, batch):
        self.model, self.plan, self.batch = model, plan, batch
        self.backbone = describe(model, "tiny")
        self.before, self.digest = self.output(), self.weights()

    def output(self):
        with torch.no_grad():
            return self.model(**self.batch).last_hidden_state

    def weights(self):
        tensors = self.model.state_dict()
        return hashlib.sha256(b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors))).hexdigest()

    def loss(self, batch=None):
        return self.distance(self.model(**(batch or self.batch)).last_hidden_state)

    @staticmethod
    def distance(states):
        """From states that no norm can hide."""
        wanted = torch.sin(torch.arange(states.shape[-1]) * 2.0)
        return (states - wanted).square().mean()

    def apply(self):
        apply(self.model, self.plan, seed=0, rows=TrainingRows(lambda: [self.batch], self.loss))

    def train(self, steps, rate=3e-2):
        parameters = adapter_parameters(self.model)
        optimizer = torch.optim.AdamW(parameters.values(), lr=rate)
        losses = []
        for step in range(steps):
            optimizer.zero_grad()
            loss = self.loss()
            loss.backward()
            if step == 0:
                self.require_gradients(parameters)
            optimizer.step()
            losses.append(loss.item())
        return losses

    def require_gradients(self, parameters):
        assert [name for name, parameter in parameters.items() if parameter.grad is None] == []
        declared = {id(parameter) for parameter in parameters.values()}
        assert all(id(p) in declared for p in self.model.parameters() if p.grad is not None)

    def check(self, folder, *, identity=True):
        self.apply()
        if identity:  # C1
            assert (self.output() - self.before).abs().max() <= 1e-5
        trained = sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)
        assert trained == trainable_parameters(self.plan, self.backbone)  # C2
        assert describe(self.model, "tiny") == self.backbone
        self.train(2)  # C3
        after = self.output()
        assert not torch.equal(after, self.before)
        save_adapter(self.model, folder)
        saved = load_file(folder / "adapter.safetensors").values()
        assert sum(tensor.numel() for tensor in saved) == stored_elements(self.plan, self.backbone)
        assert sum(tensor.nbytes for tensor in saved) == stored_bytes(self.plan, self.backbone)
        remove(self.model)
        assert self.weights() == self.digest
        assert torch.equal(self.output(), self.before)
        assert load_adapter(self.model, folder) == self.plan
        assert (self.output() - after).abs().max() <= 1e-5  # C5
        self.check_merge(after)

    def check_merge(self, after):
        names = {method.name for _, _, method in self.plan.placements()}
        if all(METHODS[name].mergeable for name in names):
            merge(self.model)
            assert (self.output() - after).abs().max() <= 1e-5  # C6
            assert not adapter_parameters(self.model)
        else:
            with pytest.raises(ConfigurationError, match=f"cannot merge {min(names)} at "):
                merge(self.model)
            assert torch.equal(self.output(), after)


def test_a_method_holds_all_checks_or_is_refused_with_its_reason(
    zoo_family, method, make_zoo, inputs_of, everywhere, refusal, tmp_path
):
    model = make_zoo(zoo_family)
    backbone = describe(model, zoo_family)
    plan = everywhere(method, backbone)
    if plan.is_empty:
        assert refusal(method, backbone)
        return
    Trial(model, plan, inputs_of(zoo_family)).check(tmp_path, identity=method.name not in NOT_IDENTITY)


@pytest.mark.parametrize("family_name", WITH_EVERY_INITIALISATION)
def test_an_initialisation_holds_all_checks(family_name, initialisation, make_zoo, inputs_of, everywhere, tmp_path):
    model = make_zoo(family_name)
    plan = everywhere(initialisation, describe(model, family_name))
    if plan.is_empty:
        assert (family_name, initialisation.init) == ("gpt2", "olora")
        return
    Trial(model, plan, inputs_of(family_name)).check(tmp_path)


def joined(plans):
    """The placements of several plans in one."""
    rows = (
        tuple(p for row in rows for p in row.placements) for rows in zip(*(plan.layers for plan in plans), strict=True)
    )
    return Configuration(tuple(LayerPlan(row) for row in rows), Training(1e-3))


@pytest.mark.parametrize("names", [ADDED_UPDATES, *itertools.combinations(ADDED_UPDATES, 2)], ids="+".join)
def test_several_updates_of_one_weight_hold_all_checks(names, examples, make_zoo, inputs_of, everywhere, tmp_path):
    model = make_zoo("llama")
    backbone = describe(model, "tiny")
    plan = joined([everywhere(examples[name], backbone) for name in names])
    assert all(len(row.placements) == 7 * len(names) for row in plan.layers)
    Trial(model, plan, inputs_of("llama")).check(tmp_path)


def test_several_updates_of_one_weight_add_up(examples, make_zoo, inputs_of):
    """What a module answers with all of them is its own answer and, for each, what it adds alone."""
    states = torch.randn(3, 16, generator=torch.Generator().manual_seed(4))

    def answer(names):
        model = make_zoo("llama")
        row = LayerPlan(tuple(Placement("query", examples[name]) for name in names))
        apply(model, Configuration((row, LayerPlan()), Training(1e-3)))
        with torch.no_grad():
            for name, parameter in adapter_parameters(model).items():
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter) * (1 + len(name) % 3))
            return model.layers[0].self_attn.q_proj(states)

    with_none = answer(())
    added = sum(answer((name,)) - with_none for name in ADDED_UPDATES)
    assert torch.allclose(answer(ADDED_UPDATES) - with_none, added, atol=1e-4)
    assert added.abs().max() > 0.1


def require_falling_loss(family, method, make_zoo, inputs_of, everywhere):
    """C4: the loss falls in forty steps, and ends no higher than without adapters."""
    model = make_zoo(family)
    plan = everywhere(method, describe(model, family))
    if plan.is_empty:
        return
    trial = Trial(model, plan, inputs_of(family))
    trial.apply()
    losses = trial.train(40)
    assert sum(losses[-4:]) < sum(losses[:4])
    assert sum(losses[-4:]) / 4 <= trial.distance(trial.before).item() + 0.01


def test_the_loss_falls_in_forty_steps(method, make_zoo, inputs_of, everywhere):
    require_falling_loss("bert", method, make_zoo, inputs_of, everywhere)


@pytest.mark.slow
def test_the_loss_falls_in_every_family_that_takes_the_method(zoo_family, method, make_zoo, inputs_of, everywhere):
    require_falling_loss(zoo_family, method, make_zoo, inputs_of, everywhere)


@pytest.mark.parametrize("family_name", WITH_EVERY_INITIALISATION)
def test_checkpoints_and_mixed_precision_leave_no_adapter_without_a_gradient(
    method, family_name, make_zoo, inputs_of, everywhere
):
    model, batch = make_zoo(family_name).train(), inputs_of(family_name)
    plan = everywhere(method, describe(model, family_name))
    if plan.is_empty:
        return
    apply(model, plan, seed=0)
    model.activation_checkpointing_enable({"use_reentrant": False})
    parameters = adapter_parameters(model)
    optimizer = torch.optim.SGD(parameters.values(), lr=0.1)
    for _ in range(2):  # what starts at zero hides the gradient of its partner in the first step
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            states = model(**batch).last_hidden_state
        Trial.distance(states.float()).backward()
        assert all(parameter.grad is not None for parameter in parameters.values())
        assert all(torch.isfinite(parameter.grad).all() for parameter in parameters.values())
        optimizer.step()
    assert any(parameter.grad.abs().max() > 0 for parameter in parameters.values())
