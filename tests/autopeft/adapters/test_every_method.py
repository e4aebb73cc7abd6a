"""Checks C1 to C6 for every method on every family that can take it."""

import hashlib

import pytest
import torch
from safetensors.torch import load_file

from autopeft.adapters import TrainingRows, adapter_parameters, apply, load_adapter, merge, remove, save_adapter
from autopeft.adapters.anatomy import describe
from autopeft.errors import ConfigurationError
from search_spaces.cost import stored_bytes, stored_elements, trainable_parameters
from search_spaces.methods import METHODS

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


def test_the_loss_falls_in_forty_steps(method, make_zoo, inputs_of, everywhere):
    model = make_zoo("bert")
    trial = Trial(model, everywhere(method, describe(model, "bert")), inputs_of("bert"))
    trial.apply()
    losses = trial.train(40)
    assert sum(losses[-4:]) < sum(losses[:4])
    assert sum(losses[-4:]) / 4 <= trial.distance(trial.before).item() + 0.01


@pytest.mark.slow
@pytest.mark.parametrize("family_name", MORE_FAMILIES)
def test_the_loss_falls_on_decoders_too(method, family_name, make_zoo, inputs_of, everywhere):
    model = make_zoo(family_name)
    plan = everywhere(method, describe(model, family_name))
    if not plan.is_empty:
        trial = Trial(model, plan, inputs_of(family_name))
        trial.apply()
        losses = trial.train(40)
        assert sum(losses[-4:]) < sum(losses[:4])
