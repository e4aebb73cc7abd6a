"""DiffoRA's search: gates on LoRA, and what may move them (arXiv 2502.08905; DARTS, arXiv 1806.09055)."""

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from autopeft.adapters.anatomy import describe
from autopeft.adapters.head import Classifier
from autopeft.errors import ConfigurationError, EvaluationError
from search_spaces.configuration import uniform
from search_spaces.methods.dora import Dora
from search_spaces.methods.lora import Lora
from search_spaces.selection import Selection
from workers.batches import EncodedRows
from workers.selection import Gates, _Bilevel, halve, search

SIZES = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 40}


class Supernet:
    """A tiny BERT with LoRA at every module, moved off its start, and rows."""

    def __init__(self, relaxation="sigmoid", method=None):
        torch.manual_seed(0)
        model = BertModel(BertConfig(num_hidden_layers=2, max_position_embeddings=24, initializer_range=0.2, **SIZES))
        self.classifier = Classifier(model, 2, None)
        self.backbone = describe(model, "tiny")
        self.configuration = uniform(self.backbone, self.backbone.roles, method or Lora(2, 4.0), 1e-2)
        self.classifier.adapt(self.configuration, seed=1)
        for module in self.classifier.model.modules():
            module.__dict__.pop("forward", None)  # as peft computes it, which gates are told apart from bit for bit
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in self.classifier.trained_parameters().values():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        numbers = np.random.default_rng(0)
        ids = numbers.integers(1, 40, (48, 12)).tolist()
        self.rows = EncodedRows(ids, None, torch.tensor(numbers.integers(0, 2, 48)), 0)
        self.gates = Gates(self.classifier, self.configuration, self.backbone, relaxation)

    def logits(self):
        with torch.no_grad():
            return self.classifier(self.rows.batch(np.arange(8), torch.device("cpu"))[0])

    def bilevel(self, rate=0.0):
        weights = list(self.classifier.trained_parameters().values())
        return _Bilevel(self.classifier, self.gates, self.rows, weights, rate)

    def weights(self):
        return {n: p.detach().clone() for n, p in self.classifier.trained_parameters().items()}

    def search(self, steps=12, **chosen):
        selection, halves = Selection(**chosen), halve(len(self.rows), 0)
        return search(self.classifier, self.gates, selection, self.rows, halves, steps, 8, 1e-2, seed=0)


@pytest.fixture(params=["sigmoid", "softmax"])
def supernet(request):
    return Supernet(request.param)


def test_gates_of_one_are_lora_bit_for_bit_and_gates_of_zero_the_backbone(supernet):
    plain = supernet.logits()
    supernet.gates.stand(torch.ones(12))
    assert torch.equal(supernet.logits(), plain)
    supernet.gates.stand(torch.zeros(12))
    off = supernet.logits()
    supernet.gates.take_off()
    assert torch.equal(supernet.logits(), plain)
    for part in supernet.classifier.trained_parameters():
        if "lora_B" in part:
            supernet.classifier.trained_parameters()[part].data.zero_()
    assert torch.allclose(supernet.logits(), off, atol=1e-6)


def test_training_under_gates_of_one_has_loras_gradients_bit_for_bit(supernet):
    gradients = []
    for gates in (None, torch.ones(12)):
        if gates is not None:
            supernet.gates.stand(gates)
        inputs, labels = supernet.rows.batch(np.arange(8), torch.device("cpu"))
        supernet.classifier.zero_grad()
        torch.nn.functional.cross_entropy(supernet.classifier(inputs), labels).backward()
        gradients.append([p.grad.clone() for p in supernet.classifier.trained_parameters().values()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_the_gates_of_a_layer_are_between_0_and_1_and_softmax_adds_up(supernet):
    with torch.no_grad():
        supernet.gates.logits.normal_()
    values = supernet.gates.values().detach()
    assert ((values > 0) & (values < 1)).all()
    if supernet.gates._softmax:
        assert torch.allclose(values.reshape(2, 6).sum(1), torch.ones(2))


def check_gradient(supernet, gradient, objective, size=1e-2, tolerance=2e-2):
    """Against central differences in the three entries of the largest gradient."""
    for entry in gradient.abs().topk(3).indices.tolist():
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                supernet.gates.logits[entry] += sign * size
            sides.append(objective())
            with torch.no_grad():
                supernet.gates.logits[entry] -= sign * size
        assert gradient[entry].item() == pytest.approx((sides[0] - sides[1]) / (2 * size), rel=tolerance)


def test_the_first_order_gradient_agrees_with_finite_differences(supernet):
    judged, level = np.arange(8, 16), supernet.bilevel()
    with torch.no_grad():
        supernet.gates.logits.normal_(generator=torch.Generator().manual_seed(1))
    gradient = level.gate_gradient(np.arange(8), judged)
    check_gradient(supernet, gradient, lambda: float(level.loss(judged, supernet.gates.values()).detach()))


def test_the_second_order_gradient_agrees_with_finite_differences_through_the_step(supernet):
    """Of L_val(w − ξ ∇_w L_train(w, a), a) as a function of a, the step being taken anew for every a."""
    trained, judged, rate = np.arange(8), np.arange(8, 16), 0.05
    level, weights = supernet.bilevel(rate), list(supernet.classifier.trained_parameters().values())
    before = supernet.weights()

    def after_a_step():
        start = [weight.detach().clone() for weight in weights]
        slopes = torch.autograd.grad(level.loss(trained, supernet.gates.values()), weights)
        with torch.no_grad():
            for weight, slope in zip(weights, slopes, strict=True):
                weight.sub_(rate * slope)
            value = float(level.loss(judged, supernet.gates.values()))
            for weight, held in zip(weights, start, strict=True):
                weight.copy_(held)
        return value

    gradient = level.gate_gradient(trained, judged)
    assert all(torch.equal(value, before[name]) for name, value in supernet.classifier.trained_parameters().items())
    check_gradient(supernet, gradient, after_a_step, tolerance=5e-2)
    first = supernet.bilevel().gate_gradient(trained, judged)
    assert (gradient - first).abs().max() > 1e-3 * first.abs().max()


@pytest.mark.parametrize("order", [1, 2])
def test_the_gates_part_and_peft_has_its_scalings_back(order):
    supernet = Supernet()
    found = supernet.search(order=order)
    values = np.array(list(found.scores.values()))
    assert len(values) == 12
    assert np.ptp(values) > 1e-3
    assert {layer.scaling["autopeft"] for layer in supernet.gates._layers} == {2.0}


def test_the_rows_of_the_gates_never_move_the_weights():
    supernet, read = Supernet(), {"weights": set(), "gates": set()}
    loss, gradient = _Bilevel.loss, _Bilevel.gate_gradient
    halves, choosing = halve(48, 0), []

    def spied_loss(self, chosen, gates):
        if not choosing:
            read["weights"] |= set(chosen.tolist())
        return loss(self, chosen, gates)

    def spied_gradient(self, trained, judged):
        before = {n: p.detach().clone() for n, p in supernet.classifier.trained_parameters().items()}
        read["gates"] |= set(judged.tolist())
        choosing.append(True)
        found = gradient(self, trained, judged)
        choosing.clear()
        assert all(torch.equal(p, before[n]) for n, p in supernet.classifier.trained_parameters().items())
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Bilevel, "loss", spied_loss)
        patch.setattr(_Bilevel, "gate_gradient", spied_gradient)
        supernet.search(order=2, steps=8)
    assert read["weights"] <= set(halves.weights.tolist())
    assert read["gates"] <= set(halves.gates.tolist())
    assert read["weights"]
    assert read["gates"]


def test_halves_share_no_row_and_leave_none_out():
    halves = halve(49, 7)
    assert sorted([*halves.weights, *halves.gates]) == list(range(49))
    assert abs(len(halves.weights) - len(halves.gates)) == 1
    assert halve(49, 7).sha256 == halves.sha256 != halve(49, 8).sha256
    with pytest.raises(EvaluationError, match="expected at least 2"):
        halve(1, 0)


def test_searches_of_one_seed_are_equal():
    assert Supernet().search().scores == Supernet().search().scores


def test_only_lora_can_be_chosen_among():
    with pytest.raises(ConfigurationError, match="the configuration has dora"):
        Supernet(method=Dora(2, 4.0))


def test_a_search_that_is_stopped_leaves_pefts_scalings():
    supernet = Supernet()

    def stop(_done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(supernet.classifier, supernet.gates, Selection(), supernet.rows, halve(48, 0), 4, 8, 1e-2, 0, stop)
    assert {layer.scaling["autopeft"] for layer in supernet.gates._layers} == {2.0}
