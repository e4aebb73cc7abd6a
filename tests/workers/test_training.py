import hashlib

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from autopeft.adapters.anatomy import describe
from autopeft.adapters.head import Classifier
from autopeft.adapters.methods.stock import lora_config
from autopeft.errors import DivergedError, EvaluationError, OutOfMemoryError
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training, uniform
from search_spaces.methods.lora import Lora
from search_spaces.methods.mola import Mola
from search_spaces.routers import TopK
from workers.backbones import load_resident
from workers.batches import training_order
from workers.training import loss_of, memory_errors, rate_share, train

CPU = torch.device("cpu")


def uneven(rate=2e-2):
    """Another rank in every layer and module."""
    rows = [
        LayerPlan((Placement("query", Lora(1, 2.0)), Placement("down", Lora(4, 2.0)))),
        LayerPlan((Placement("value", Lora(3, 6.0)), Placement("output", Lora(2, 1.0)))),
    ]
    return Configuration(tuple(rows), Training(rate))


def frozen_digest(classifier):
    trained = {id(parameter) for parameter in classifier.trained_parameters().values()}
    found = hashlib.sha256()
    for name, parameter in sorted(classifier.model.named_parameters()):
        if id(parameter) not in trained:
            found.update(name.encode() + parameter.detach().numpy().tobytes())
    return found.hexdigest()


def test_the_rate_warms_up_and_falls_to_nothing():
    shares = [rate_share(step, 100) for step in range(100)]
    assert shares[:11] == pytest.approx([*(step / 10 for step in range(1, 11)), 1.0])
    assert shares[55] == pytest.approx(0.5)
    assert shares[99] == pytest.approx(1 / 90)
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert [rate_share(step, 2) for step in range(2)] == [1.0, 1.0]
    assert rate_share(0, 1) == 1.0


def test_the_loss_is_cross_entropy_or_squared_error():
    assert loss_of(torch.zeros(2, 4), torch.tensor([0, 3])).item() == pytest.approx(np.log(4))
    assert loss_of(torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 4.0])).item() == pytest.approx(2.5)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_stock_peft_trains_to_the_same_losses_step_by_step(make_study, family):
    """Peft's own model class, transformers' own loss and a plain AdamW loop, from the same initial values."""
    study = make_study(family, "stock")
    resident = load_resident(study, CPU)
    plan, steps = uneven(), 5
    order = training_order(resident.train.lengths, 8, steps, study.seed, 0)
    resident.classifier.adapt(plan, seed=1)
    initial = {name: value.detach().clone() for name, value in resident.classifier.trained_parameters().items()}

    headed = AutoModelForSequenceClassification.from_pretrained(study.model.source, num_labels=2)
    modules = {study.backbone.module(layer, site).path: method for layer, site, method in plan.placements()}
    head = sorted({name.partition(".")[0] for name in resident.classifier.head_parameters()})
    config = lora_config({f"{headed.base_model_prefix}.{path}": method for path, method in modules.items()})
    config.modules_to_save = head
    reference = peft.get_peft_model(headed, config).eval()
    trained = [parameter for parameter in reference.parameters() if parameter.requires_grad]
    with torch.no_grad():
        for name, value in initial.items():
            matching = [p for n, p in reference.named_parameters() if p.requires_grad and plain(n).endswith(f".{name}")]
            assert len(matching) == 1
            matching[0].copy_(value)
    assert len(trained) == len(initial)
    expected = []
    optimizer = torch.optim.AdamW(trained, lr=2e-2, weight_decay=0.01, foreach=False)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-2 * rate_share(step, steps)
        inputs, labels = resident.train.batch(order[step], CPU)
        loss = reference(**inputs, labels=labels).loss
        expected.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    curve = train(resident.classifier, resident.train, order, 2e-2)
    assert [step for step, _ in curve] == [1, 2, 3, 4, 5]
    assert np.abs(np.array([loss for _, loss in curve]) - expected).max() <= 1e-6


def plain(name):
    return name.replace(".default.", ".").replace(".modules_to_save", "")


@pytest.mark.parametrize("pooling", ["mean", "stock"])
def test_what_is_frozen_stays_bit_identical_and_the_rest_learns(make_study, pooling):
    study = make_study(pooling=pooling)
    resident = load_resident(study, CPU)
    classifier = resident.classifier
    classifier.adapt(uneven(), seed=1)
    before = frozen_digest(classifier)
    start = {name: value.detach().clone() for name, value in classifier.trained_parameters().items()}
    losses = [
        loss
        for _, loss in train(
            classifier, resident.train, training_order(resident.train.lengths, 8, 40, study.seed, 0), 2e-2
        )
    ]
    assert frozen_digest(classifier) == before
    assert all(not torch.equal(start[name], value) for name, value in classifier.trained_parameters().items())
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


def test_gradients_are_only_where_declared(resident):
    classifier = resident.classifier
    classifier.adapt(uneven(), seed=1)
    train(classifier, resident.train, training_order(resident.train.lengths, 8, 2, 0, 0), 1e-2)
    with_gradient = {id(parameter) for parameter in classifier.parameters() if parameter.grad is not None}
    assert with_gradient == {id(parameter) for parameter in classifier.trained_parameters().values()}


def test_training_stays_in_evaluation_mode(resident):
    seen = []
    handle = resident.classifier.model.encoder.layer[0].register_forward_hook(
        lambda module, *_: seen.append(module.training)
    )
    resident.classifier.adapt(uneven(), seed=1)
    train(resident.classifier, resident.train, training_order(resident.train.lengths, 8, 2, 0, 0), 1e-2)
    handle.remove()
    assert seen == [False, False]


def test_an_adapter_without_a_gradient_is_an_error_that_names_it(resident):
    classifier = resident.classifier
    classifier.adapt(uneven(), seed=1)
    classifier.model.get_submodule("encoder.layer.1.attention.self.value").enable_adapters(False)
    classifier.model.get_submodule("encoder.layer.1.attention.self.value").lora_A.requires_grad_(True)
    with pytest.raises(
        EvaluationError, match=r"2 of 10 trained tensors got no gradient.*layer\.1\.attention\.self\.value"
    ):
        train(classifier, resident.train, training_order(resident.train.lengths, 8, 2, 0, 0), 1e-2)


def test_a_loss_that_is_not_finite_is_divergence(resident):
    classifier = resident.classifier
    classifier.adapt(uneven(), seed=1)
    with torch.no_grad():
        classifier.head_parameters()["classifier.bias"].fill_(float("nan"))
    with pytest.raises(DivergedError, match="the training loss is nan at step 1"):
        train(classifier, resident.train, training_order(resident.train.lengths, 8, 3, 0, 0), 1e-2)


def test_a_long_run_has_a_short_curve_of_mean_losses(resident):
    resident.classifier.adapt(uniform_head(resident.classifier), seed=1)
    curve = train(resident.classifier, resident.train, training_order(resident.train.lengths, 2, 120, 0, 0), 1e-3)
    assert [step for step, _ in curve] == list(range(3, 121, 3))


def uniform_head(classifier: Classifier):
    from autopeft.adapters.anatomy import describe

    return uniform(describe(classifier.model, "tiny"), (), Lora(1, 1.0), 1e-3)


def test_what_is_called_between_steps_can_end_the_training(resident):
    resident.classifier.adapt(uneven(), seed=1)
    seen = []

    def end(done):
        seen.append(done)
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(resident.classifier, resident.train, training_order(resident.train.lengths, 8, 5, 0, 0), 1e-2, end)
    assert seen == [1, 2]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried …"),
    ],
)
def test_every_kind_of_no_memory_is_one_error(error):
    with pytest.raises(OutOfMemoryError, match="lower --batch-size"), memory_errors():
        raise error


def test_another_runtime_error_stays_itself():
    with pytest.raises(RuntimeError, match="shapes"), memory_errors():
        raise RuntimeError("shapes do not match")


def test_memory_really_runs_out():
    with pytest.raises(OutOfMemoryError), memory_errors():
        torch.empty(2**60)


def test_what_adapters_add_to_the_loss_is_trained_on_and_not_in_the_curve(resident):
    order = training_order(resident.train.lengths, 8, 3, 0, 0)
    curves, routers = [], []
    for balance in (0.0, 1.0):
        plan = uniform(describe(resident.classifier.model, "tiny"), ("query",), Mola(4, 2, 4.0, TopK(1, balance)), 1e-2)
        resident.classifier.adapt(plan, seed=1)
        curves.append(train(resident.classifier, resident.train, order, 1e-2))
        trained = resident.classifier.trained_parameters()
        routers.append({name: p.detach().clone() for name, p in trained.items() if name.endswith("router")})
        resident.classifier.strip()
    assert curves[0][0] == curves[1][0]  # before the first step only the balance differs
    assert not any(torch.equal(value, routers[1][name]) for name, value in routers[0].items())
