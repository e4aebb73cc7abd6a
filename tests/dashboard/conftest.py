"""Databases with empty, running and finished studies, made through the store as a search makes them."""

import numpy as np
import pytest


@pytest.fixture
def minilm():
    """The shapes of the embedded backbone: six layers, 384 wide."""
    from search_spaces.backbone import Backbone, ModuleShape

    sites = {
        "query": ("attention.self.query", 384, 384),
        "key": ("attention.self.key", 384, 384),
        "value": ("attention.self.value", 384, 384),
        "output": ("attention.output.dense", 384, 384),
        "up": ("intermediate.dense", 384, 1536),
        "down": ("output.dense", 1536, 384),
    }

    def layer(index):
        at = f"encoder.layer.{index}"
        return tuple(ModuleShape(role, f"{at}.{name}", i, o) for role, (name, i, o) in sites.items())

    return Backbone("all-MiniLM-L6-v2", "bert", 384, 22_713_216, tuple(layer(index) for index in range(6)))


@pytest.fixture
def address(tmp_path, monkeypatch):
    """Address of a database that does not exist yet; the dashboard's own."""
    url = f"sqlite:///{tmp_path / 'record.db'}"
    monkeypatch.setenv("AUTOPEFT_DB", url)
    return url


@pytest.fixture
def make_record(address, minilm, make_study):
    """Writes a study with ``finished`` trials of ``count``; one more runs, the rest are queued."""
    from autopeft.budget import Budget
    from autopeft.store import Store
    from search_spaces.presets import layerwise

    def make(name="aspects-1", count=0, finished=0, failing=(), save=None, **fields):
        space = layerwise(fields.get("backbone", minilm), (2e-4, 1e-2))
        with Store.open(address, create=True) as store:
            study = make_study(
                name=name,
                trials=count,
                **{"backbone": minilm, "budget": Budget(113_566, "0.5%"), "space": space, **fields},
            )
            store.create_study(study)
            if count:
                _enqueue(store, study, count)
            _work(store, study, finished, failing, save or (lambda order: {}))
        return study

    return make


def _enqueue(store, study, count):
    from autopeft.study import Origin, Proposal
    from search_spaces.configuration import Configuration, LayerPlan, Training
    from search_spaces.presets import control

    epoch = store.acquire_driver(study.name, "test")
    empty = Configuration((LayerPlan(),) * study.backbone.layer_count, Training(1e-3))
    proposals = [Proposal(empty, Origin.REFERENCE, "head only")]
    sweep = control(study.backbone, study.budget.parameters, 1e-3)
    proposals += [Proposal(configuration, Origin.CONTROL, label) for label, configuration in sweep.items()]
    generator = np.random.default_rng(study.seed)
    space = study.search_space
    proposals += [Proposal(space.sample(generator, study.budget.parameters), Origin.MODEL) for _ in range(count)]
    store.enqueue(study.name, epoch, proposals)
    store.release_driver(study.name, epoch)


def _work(store, study, finished, failing, save):
    store.register_worker("w0", "host", "cpu", 1, {})
    for turn in range(finished + 1):
        order = store.lease("w0", study.name)
        if order is None:
            return
        if order.number in failing:
            store.report_diverged(order.trial_id, order.attempt, "loss is nan after step 3")
        elif turn < finished:
            store.report(order.trial_id, order.attempt, measured(order, **save(order)))


def measured(order, **saved):
    from autopeft.study import PARAMETERS, Measurement
    from search_spaces.cost import trainable_parameters

    cost = trainable_parameters(order.configuration, order.study.backbone)
    generator = np.random.default_rng(order.number)
    quality = 0.56 + 0.36 * (cost / 120_000) ** 0.3 - 0.12 * generator.random() if cost else 0.56
    values = {
        order.study.metric: round(quality, 4),
        "loss": 1 - quality,
        "train_seconds": 8.25,
        "evaluate_seconds": 0.5,
    }
    return Measurement(0, {**values, PARAMETERS: cost}, curve=((1, 1.1), (10, 0.7)), **saved)
