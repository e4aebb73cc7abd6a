"""A sibling that stands in: what trains on which model, at whose costs, and how well it orders."""

from dataclasses import replace

import pytest

from autopeft.api import record
from autopeft.asking import fixed, missing_references, observations
from autopeft.errors import ConfigurationError, ExportError
from autopeft.export import export_trial
from autopeft.objectives import exact, parse
from autopeft.price import Measured, Prices, drawn, figures, figures_in, from_trials
from autopeft.proxy import agreement, carried, exportable, lines, on_proxy, require_fit, trained_on
from autopeft.store import Store
from autopeft.study import Measurement, ModelSpec, Origin, Proposal, Proxy, Study, TrialState
from search_spaces.backbone import Backbone
from search_spaces.presets import layerwise
from search_spaces.selection import Selection


def stretched(backbone: Backbone, layers: int, **changes) -> Backbone:
    """The backbone with so many layers, each like its first."""
    return replace(backbone, layers=backbone.layers[:1] * layers, norms=backbone.norms[:1] * layers, **changes)


@pytest.fixture
def proxied(make_study, tiny_backbone):
    """A study of four layers whose trials train on two."""
    target = stretched(tiny_backbone, 4, name="target")
    sibling = stretched(tiny_backbone, 2, name="sibling")
    return lambda **fields: make_study(
        **{
            "backbone": target,
            "space": layerwise(target, (1e-4, 1e-2)),
            "proxy": Proxy(ModelSpec("sibling", "mean", "1" * 64), sibling),
            **fields,
        }
    )


def test_a_study_with_a_sibling_comes_back_as_it_was(proxied, make_study):
    assert Study.from_json(proxied().to_json()) == proxied()
    assert trained_on(proxied()) == "target (searched on sibling)"
    assert "proxy" not in make_study().to_json()


def test_a_trial_is_trained_on_the_sibling_at_the_models_costs(proxied, tmp_path):
    study = proxied()
    plan = drawn(study)[0]
    with Store.open(f"sqlite:///{tmp_path}/a.db", create=True) as store:
        record(store, study, named=True)
        epoch = store.acquire_driver(study.name, "test")
        store.enqueue(
            study.name, epoch, [Proposal(plan, Origin.MODEL), Proposal(plan, Origin.CONFIRMATION, replicate=1)]
        )
        searched, confirming = store.lease("w", study.name), store.lease("w", study.name)
    assert searched.study == on_proxy(study)
    assert (searched.study.model, searched.study.backbone) == (study.proxy.model, study.proxy.backbone)
    assert searched.configuration == carried(study, plan)
    assert searched.costs == {name: cost(plan) for name, cost in exact(study).items()}
    assert (confirming.study, confirming.configuration, confirming.costs) == (study, plan, None)


def test_a_study_without_a_sibling_is_trained_as_it_is(make_study):
    study = make_study()
    plan = drawn(study)[0]
    assert on_proxy(study) is study
    assert carried(study, plan) is plan
    assert lines(study) == []
    assert trained_on(study) == "tiny"
    assert agreement(study, []) is None


def test_every_plan_of_the_space_fits_the_sibling(proxied):
    study = proxied()
    require_fit(study, drawn(study))
    for plan in drawn(study):
        assert not carried(study, plan).is_empty


def test_a_sibling_that_cannot_stand_in_is_refused(proxied, make_study, tiny_backbone):
    study = proxied()
    other = replace(study, proxy=replace(study.proxy, backbone=stretched(tiny_backbone, 2, family="roberta")))
    with pytest.raises(ConfigurationError, match="same family"):
        require_fit(other, [])
    narrow = replace(study.proxy.backbone, refusals=(("lora", "no room"),))
    with pytest.raises(ConfigurationError, match="does not fit it: lora on bert: no room"):
        require_fit(replace(study, proxy=replace(study.proxy, backbone=narrow)), drawn(study))


def test_costs_that_would_be_measured_on_the_sibling_are_refused(proxied):
    timed = proxied(objectives=parse("accuracy,train_seconds", "accuracy", {}))
    with pytest.raises(ConfigurationError, match="train_seconds would be measured on it and not on target"):
        require_fit(timed, [])
    with pytest.raises(ConfigurationError, match="peak_memory would be measured"):
        require_fit(proxied(limits={"peak_memory": 1e9}), [])
    require_fit(proxied(limits={"stored_bytes": 1e9}), [])


def test_references_train_on_the_model_and_the_head_alone_on_the_sibling(proxied, tmp_path, make_trial):
    study = proxied(references=("serial", "full"))
    require_fit(study, [])
    head, *beside = [*fixed(study)[:1], *missing_references(study, [])]
    assert [one.label for one in beside][-1] == "full fine-tuning" and len(beside) > 1
    with Store.open(f"sqlite:///{tmp_path}/a.db", create=True) as store:
        record(store, study, named=True)
        store.enqueue(study.name, store.acquire_driver(study.name, "test"), [head, *beside])
        orders = [store.lease("w", study.name) for _ in (head, *beside)]
    assert [one.study for one in orders] == [on_proxy(study), *[study] * len(beside)]
    assert [one.configuration for one in orders[1:]] == [one.configuration for one in beside]
    given = {"origin": Origin.REFERENCE, "configuration": beside[0].configuration}
    assert exportable(study, trial := make_trial(1, 0.7, **given), []) is trial


def test_plans_that_choose_for_themselves_are_refused(proxied):
    plan = drawn(proxied())[0]
    choosing = replace(plan, training=replace(plan.training, selection=Selection(ratio=0.5)))
    with pytest.raises(ConfigurationError, match="choose their own modules"):
        require_fit(proxied(), [choosing])


@pytest.fixture
def both(proxied, make_trial):
    """Five configurations, each trained on the sibling and three of them on the model too, in another order."""
    study, trials = proxied(), []
    for number, plan in enumerate(drawn(study)[:5]):
        given = {"configuration": plan, "digest": plan.digest}
        trials.append(make_trial(number, 0.5 + number / 10, **given))
        if number < 3:
            quality = (0.8, 0.7, 0.9)[number]
            trials.append(make_trial(10 + number, quality, origin=Origin.CONFIRMATION, replicate=1, **given))
    return study, trials


def test_what_was_trained_on_both_says_how_well_the_sibling_orders(both):
    study, trials = both
    found = agreement(study, trials)
    assert (found.count, found.kendall, found.spearman) == (3, pytest.approx(1 / 3), pytest.approx(0.5))
    said = lines(study, found)
    assert "head alone train on sibling (2 layers for 4)" in said[0]
    assert "of 3 configurations trained on both: Kendall 0.33" in said[1]
    assert agreement(study, trials[:4]) is None


def test_the_proposer_is_not_told_what_the_model_showed(both, make_study):
    study, trials = both
    assert len(observations(study, trials)) == 5
    assert len(observations(replace(study, proxy=None), trials)) == 8


def test_prices_tell_the_sibling_from_the_model(both):
    study, trials = both
    assert (
        figures_in(study, trials[0].configuration, on_model=True).tolist()
        == figures(trials[0].configuration, study.backbone).tolist()
    )  # layers as wide as the sibling's
    shallow = figures_in(study, trials[0].configuration, on_model=False)
    assert shallow[1] + shallow[4] == 2
    weights = [Measured(plan, float(figures_in(study, plan, False)[1]), 0.001) for plan in drawn(study)[:30]]
    prices = Prices.fitted(study, 10, weights)
    dearer = [prices.seconds(plan, on_model=True) / prices.seconds(plan) for plan in drawn(study)]
    assert min(dearer) > 1
    assert from_trials(study, trials) is not None


def test_weights_of_the_sibling_are_not_exported_as_the_models(both, tmp_path):
    study, trials = both
    trained = replace(trials[0], state=TrialState.COMPLETE)
    with pytest.raises(ExportError, match=r"trained on the proxy sibling.*autopeft train 0"):
        export_trial(study, trained, Measurement(0, {"accuracy": 0.5}), tmp_path, "autopeft", tmp_path / "out")
    assert exportable(study, trials[0], trials).number == 10
    assert exportable(study, trials[-1], trials) is None
    assert exportable(replace(study, proxy=None), trials[0], trials) is trials[0]
