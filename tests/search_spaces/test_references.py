"""References: which sizes fit, at what rate, and full fine-tuning as a configuration."""

import json

import pytest

from search_spaces.configuration import Configuration, LayerPlan, Placement, Training
from search_spaces.cost import forward_flops, frozen_layer_count, stored_elements, trainable_parameters
from search_spaces.errors import ConfigurationError
from search_spaces.methods.lora import Lora
from search_spaces.references import ADAPTERS, NAMES, RATES, references
from search_spaces.schedule import UpdateSchedule


def test_a_few_sizes_of_each_method_lie_within_the_budget(tiny_backbone):
    found = references(tiny_backbone, 2_000, 1e-3, ADAPTERS)
    assert list(found) == list(ADAPTERS)
    for name, plans in found.items():
        assert 1 <= len(plans) <= 3, name
        costs = [trainable_parameters(plan, tiny_backbone) for plan in plans.values()]
        assert costs == sorted(costs) and costs[-1] <= 2_000
        assert {method.name for plan in plans.values() for _, _, method in plan.placements()} == {name}
        assert {plan.training.learning_rate for plan in plans.values()} == {1e-3 * RATES.get(name, 1.0)}


def test_the_smallest_and_the_largest_that_fit_are_among_them(tiny_backbone):
    few = references(tiny_backbone, 2_000, 1e-3, ["prefix"])["prefix"]
    assert next(iter(few)) == "prefix 1"
    assert len(few) == 3
    assert references(tiny_backbone, 10, 1e-3, ["serial", "mola"]) == {"serial": {}, "mola": {}}


def test_full_fine_tuning_trains_the_whole_backbone_and_inserts_nothing(tiny_backbone):
    (plan,) = references(tiny_backbone, 10, 1e-3, ["full"])["full"].values()
    assert trainable_parameters(plan, tiny_backbone) == tiny_backbone.parameter_count
    assert stored_elements(plan, tiny_backbone) == tiny_backbone.parameter_count
    assert forward_flops(plan, tiny_backbone, 8) == 0
    assert frozen_layer_count(plan) == 0
    assert Configuration.from_json(json.loads(plan.canonical_text())) == plan
    head_only = Configuration(plan.layers, Training(plan.training.learning_rate))
    assert head_only.digest != plan.digest and "backbone" not in head_only.canonical_text()


def test_full_fine_tuning_takes_no_adapter_and_no_schedule():
    row = LayerPlan((Placement("query", Lora(1, 2.0)),))
    with pytest.raises(ConfigurationError, match="insert nothing beside it"):
        Configuration((row,), Training(1e-4, backbone=True))
    with pytest.raises(ConfigurationError, match="has no adapters that a schedule"):
        Training(1e-4, UpdateSchedule(update_fraction=0.5), backbone=True)
    with pytest.raises(ConfigurationError, match="expected true or false"):
        Training.from_json({"learning_rate": 1e-4, "backbone": "yes"})


def test_an_unknown_reference_names_the_known_ones(tiny_backbone):
    with pytest.raises(ConfigurationError, match=f"'lora'.*{NAMES[0]}.*full"):
        references(tiny_backbone, 100, 1e-3, ["lora"])
