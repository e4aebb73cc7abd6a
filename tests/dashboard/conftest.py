"""Databases with empty, running and finished studies, made through the store as a search makes them."""

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

ROWS = 400
"""Validation rows of every measurement."""


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
    top = {"rung": study.fidelity.top}
    proposals = [Proposal(empty, Origin.REFERENCE, "head only", **top)]
    sweep = control(study.backbone, study.budget.parameters, 1e-3)
    proposals += [Proposal(configuration, Origin.CONTROL, label, **top) for label, configuration in sweep.items()]
    generator = np.random.default_rng(study.seed)
    space = study.search_space
    proposals += [Proposal(space.sample(generator, study.budget.parameters), Origin.MODEL) for _ in range(count)]
    store.enqueue(study.name, epoch, proposals)
    store.release_driver(study.name, epoch)


@pytest.fixture
def confirm(address):
    """Enqueues what a study asks to be trained again, ends ``finished`` of it (None: all), and says how many it is."""
    from autopeft.confirming import missing
    from autopeft.standing import standing
    from autopeft.store import Store

    def make(study, finished=None):
        with Store.open(address) as store:
            trials = store.trials(study.name)
            proposals = missing(study, trials, standing(study, trials))
            epoch = store.acquire_driver(study.name, "test")
            store.enqueue(study.name, epoch, proposals)
            store.release_driver(study.name, epoch)
            for _ in proposals[:finished]:
                order = store.lease("w0", study.name)
                store.report(order.trial_id, order.attempt, measurement(order))
        return len(proposals)

    return make


@pytest.fixture
def compare(address):
    """Enqueues the references that a study asks for, and ends them."""
    from autopeft.asking import missing_references
    from autopeft.store import Store

    def make(study):
        with Store.open(address) as store:
            proposals = missing_references(study, store.trials(study.name))
            epoch = store.acquire_driver(study.name, "test")
            store.enqueue(study.name, epoch, proposals)
            store.release_driver(study.name, epoch)
            for _ in proposals:
                order = store.lease("w0", study.name)
                store.report(order.trial_id, order.attempt, measurement(order))

    return make


@pytest.fixture
def climb(address):
    """Lets those go on that are to go on from their rungs, until nobody is."""
    from autopeft.rungs import promotions
    from autopeft.store import Store

    def up(study):
        with Store.open(address) as store:
            while numbers := promotions(study, store.trials(study.name), more_to_come=False):
                epoch = store.acquire_driver(study.name, "test")
                store.promote(study.name, epoch, numbers)
                store.release_driver(study.name, epoch)
                while order := store.lease("w0", study.name):
                    store.report(order.trial_id, order.attempt, measurement(order))

    return up


@pytest.fixture
def measured():
    """What a trial measures, made up from its cost and its number."""
    return measurement


@pytest.fixture
def three_objectives():
    """Quality, trained parameters and a measured cost."""
    from autopeft.study import PARAMETERS, Direction, Objective

    costs = (PARAMETERS, "train_seconds")
    return (
        Objective("accuracy", Direction.MAXIMISE),
        *(Objective(name, Direction.MINIMISE) for name in costs),
    )


def _work(store, study, finished, failing, save):
    store.register_worker("w0", "host", "cpu", 1, {})
    for turn in range(finished + 1):
        order = store.lease("w0", study.name)
        if order is None:
            return
        if order.number in failing:
            store.report_diverged(order.trial_id, order.attempt, "loss is nan after step 3")
        elif turn < finished:
            store.report(order.trial_id, order.attempt, measurement(order, **save(order)))


def measurement(order, **saved):
    from autopeft.study import PARAMETERS, Measurement
    from search_spaces.cost import trainable_parameters

    cost = trainable_parameters(order.configuration, order.study.backbone)
    generator = np.random.default_rng(order.number)
    quality = 0.56 + 0.36 * (cost / 120_000) ** 0.3 - 0.12 * generator.random() if cost else 0.56
    right = round(quality * ROWS)
    values = {
        order.study.metric: right / ROWS,
        "loss": 1 - quality,
        "train_seconds": round(8 + 4 * generator.random(), 2),
        "evaluate_seconds": 0.5,
    }
    marks = tuple([1] * right + [0] * (ROWS - right))
    details = {"importance": generator.random(len(order.configuration.layers)).round(3).tolist()}
    saved = {"details": details, **saved}
    return Measurement(order.rung, {**values, PARAMETERS: cost}, curve=((1, 1.1), (10, 0.7)), correct=marks, **saved)


@pytest.fixture
def open_page():
    """Opens a page by its name; further arguments stand in the address."""
    return _open_page


@pytest.fixture
def shown():
    """All that a page says in words."""
    return _shown


@pytest.fixture
def headings():
    """Title and headings of a page."""
    return _headings


@pytest.fixture
def html():
    """The pieces of HTML on a page."""
    return _html


@pytest.fixture
def charts():
    """The charts on a page."""
    return _charts


def _open_page(name="front", **query):
    """A page by its address; a page of its own script, as AppTest knows no addresses of functions."""
    page = AppTest.from_function(_show, default_timeout=300, args=(name,))
    for key, value in query.items():
        page.query_params[key] = str(value)
    page.run()
    assert not page.exception
    return page


def _shown(page):
    kinds = ("markdown", "caption", "info", "warning", "error", "success")
    return " ".join(str(element.value) for kind in kinds for element in getattr(page, kind)).replace("\\", "")


def _headings(page):
    return [element.value for element in (*page.title, *page.subheader)]


def _html(page):
    return [element.proto.body for element in page.get("html")]


def _charts(page):
    return page.get("arrow_vega_lite_chart") or page.get("vega_lite_chart")


def _show(name):
    import importlib

    importlib.import_module(f"dashboard.views.{name}").page()
