"""What stands beside the table, and which targets can hold it; no model is built."""

from dataclasses import replace

import pytest

from autopeft.errors import LossyExportError
from autopeft.export import TARGETS
from autopeft.export.holding import EVERY, describe, everyday_target, hold
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training, uniform
from search_spaces.methods.lora import Lora
from search_spaces.methods.mola import Mola
from search_spaces.methods.prefix import Prefix
from search_spaces.schedule import UpdateSchedule
from search_spaces.selection import Selection


@pytest.mark.parametrize(
    ("target", "loses"),
    [("autopeft", False), ("peft", False), ("vllm", False), ("script", True), ("trl", True), ("axolotl", True)],
)
def test_what_trains_anew_cannot_hold_an_update_schedule(target, loses, tiny_backbone):
    plain = uniform(tiny_backbone, ("query",), Lora(2, 4.0), 1e-3)
    assert not hold(target, plain, tiny_backbone, None).lost
    held = hold(target, replace(plain, training=Training(1e-3, UpdateSchedule())), tiny_backbone, None)
    if not loses:
        held.require(3, lossy=False)
        return
    with pytest.raises(LossyExportError, match="the update schedule"):
        held.require(3, lossy=False)
    held.require(3, lossy=True)


@pytest.mark.parametrize(
    ("sites", "method", "target"),
    [(("query",), Lora(2, 4.0), "peft"), (("attention",), Prefix(2), "autopeft"), ((), Lora(2, 4.0), "autopeft")],
)
def test_the_target_that_is_offered_holds_the_whole_plan(sites, method, target, tiny_backbone):
    plan = uniform(tiny_backbone, sites, method, 1e-3)
    assert everyday_target(plan, tiny_backbone) == target
    held = hold(target, plan, tiny_backbone, None)
    held.require(3, lossy=False)
    assert held.configuration == plan


@pytest.mark.parametrize(
    ("target", "schedule", "takers"),
    [
        ("peft", None, "export --to script or autopeft for all of it"),
        ("script", UpdateSchedule(), "export --to autopeft for all of it"),
        ("trl", UpdateSchedule(), "export --to autopeft for all of it"),
    ],
)
def test_what_cannot_hold_a_plan_says_what_would_be_lost_and_who_can(target, schedule, takers, tiny_backbone):
    plain = uniform(tiny_backbone, ("query",), Lora(2, 4.0), 1e-3)
    mixed = (*plain.layers[:1], LayerPlan((Placement("attention", Prefix(2)),)))
    held = hold(target, Configuration(mixed, Training(1e-3, schedule)), tiny_backbone, None)
    assert not held.is_whole
    with pytest.raises(LossyExportError) as refused:
        held.require(3, lossy=False)
    said = str(refused.value)
    assert f"{takers}, or add --lossy" in said
    assert ("layer 1 attention: prefix length 2" in said) == (target != "script")
    assert ("update schedule" in said) == (schedule is not None)


def test_layers_that_lose_the_same_stand_on_one_line(tiny_backbone):
    plan = uniform(tiny_backbone, ("query", "value"), Mola(2, 1, 2.0), 1e-3)
    held = hold("peft", plan, tiny_backbone, None)
    assert held.lost[:2] == tuple(f"layer 0 {site}: {describe(Mola(2, 1, 2.0))}" for site in ("query", "value"))
    with pytest.raises(LossyExportError, match="nothing of trial 3: layers 0,1 query, value: mola experts 2, rank 1"):
        held.require(3, lossy=True)


def test_plain_lora_on_a_classifier_goes_whole_to_all_that_know_heads(tiny_backbone):
    plan = uniform(tiny_backbone, ("query",), Lora(2, 4.0), 1e-3)
    assert hold("peft", plan, tiny_backbone, "mean pooling").takers == ("peft", "vllm", "script", "autopeft")
    assert hold("peft", plan, tiny_backbone, None).takers == EVERY == tuple(sorted(TARGETS, key=EVERY.index))


@pytest.mark.parametrize("target", ["autopeft", "peft", "vllm", "script", "trl", "axolotl", "llamafactory"])
@pytest.mark.parametrize("weights", ["retrain", "continue"])
def test_what_trains_anew_cannot_hold_the_weights_of_a_search(target, weights, tiny_backbone):
    kept = uniform(tiny_backbone, ("query",), Lora(2, 4.0), 1e-3)
    held = hold(target, kept, tiny_backbone, None, Selection(weights=weights))
    if weights == "retrain" or target in ("autopeft", "peft", "vllm"):
        held.require(3, lossy=False)
        return
    with pytest.raises(LossyExportError, match="the weights of the search"):
        held.require(3, lossy=False)
    held.require(3, lossy=True)
