import copy
import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.backbone import ROLES
from search_spaces.configuration import SCHEMA, Configuration, LayerPlan, Placement, Training, uniform
from search_spaces.cost import trainable_parameters
from search_spaces.errors import ConfigurationError
from search_spaces.methods.dora import Dora
from search_spaces.methods.lora import Lora
from search_spaces.schedule import UpdateSchedule
from search_spaces.selection import Selection

methods = st.builds(Lora, st.integers(1, 64), st.floats(0.1, 128))
rows = st.dictionaries(st.sampled_from(ROLES), methods).map(
    lambda row: LayerPlan(tuple(Placement(site, method) for site, method in row.items()))
)
configurations = st.builds(
    Configuration, st.lists(rows, min_size=1, max_size=4).map(tuple), st.builds(Training, st.floats(1e-6, 1))
)


@settings(deadline=None)
@given(configurations)
def test_json_goes_both_ways_and_keeps_the_digest(configuration):
    again = Configuration.from_json(configuration.to_json())
    assert again == configuration
    assert again.digest == configuration.digest


@settings(deadline=None)
@given(configurations, configurations)
def test_digests_are_equal_for_equal_plans_only(one, other):
    assert (one.digest == other.digest) == (one == other)


def test_the_order_in_which_placements_are_given_does_not_matter():
    query, down = Placement("query", Lora(1, 2.0)), Placement("down", Lora(2, 4.0))
    assert LayerPlan((down, query)) == LayerPlan((query, down))


def test_learning_rates_that_agree_in_four_digits_are_one(tiny_backbone):
    one, other = (uniform(tiny_backbone, ("query",), Lora(1, 2.0), rate) for rate in (1.00001e-3, 1.00002e-3))
    assert one.digest == other.digest


def test_the_digest_does_not_change_between_versions(tiny_backbone):
    configuration = uniform(tiny_backbone, ("query",), Lora(1, 2), 1e-3)
    assert configuration.canonical_text() == (
        '{"layers":[{"query":{"lora":{"alpha":2.0,"rank":1}}},{"query":{"lora":{"alpha":2.0,"rank":1}}}],'
        '"schema":"autopeft.configuration/1","training":{"learning_rate":0.001}}'
    )
    assert configuration.digest == "b054b8383f4cebe3fc6093e6e36b1b9b512db680fd1de95cc3b9adba2cd06888"


def test_a_plan_with_nothing_in_it_is_empty(tiny_backbone):
    assert Configuration((LayerPlan(), LayerPlan()), Training(1e-3)).is_empty
    assert not uniform(tiny_backbone, ("query",), Lora(1, 2.0), 1e-3).is_empty


def test_a_method_is_found_at_its_site():
    row = LayerPlan((Placement("query", Lora(1, 2.0)),))
    assert row.at("query", "lora") == Lora(1, 2.0)
    assert row.at("key", "lora") is None


def test_two_of_one_method_at_one_site_are_refused():
    with pytest.raises(ConfigurationError, match="stands twice at one site"):
        LayerPlan((Placement("query", Lora(1, 2.0)), Placement("query", Lora(2, 4.0))))


def test_an_unknown_site_names_those_there_are():
    with pytest.raises(ConfigurationError, match="unknown site 'pooler'; sites are query, key"):
        LayerPlan((Placement("pooler", Lora(1, 2.0)),))


@pytest.mark.parametrize("rate", [0, -1e-3, 1.5, float("nan"), float("inf"), True, "1e-3"])
def test_a_learning_rate_lies_between_nothing_and_one(rate):
    with pytest.raises(ConfigurationError, match=r"learning rate .*expected a number in \(0, 1\]"):
        Training(rate)


def test_a_site_that_the_backbone_lacks_is_refused(tiny_backbone):
    rows = (LayerPlan((Placement("gate", Lora(1, 2.0)),)), LayerPlan())
    with pytest.raises(ConfigurationError, match="has no module 'gate'"):
        Configuration(rows, Training(1e-3)).validate(tiny_backbone)


GOOD = {
    "schema": SCHEMA,
    "layers": [{"query": {"lora": {"rank": 1, "alpha": 2.0}}}],
    "training": {"learning_rate": 0.1},
}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ("schema",),
            "autopeft.configuration/9",
            "configuration schema 'autopeft.configuration/9': this version reads",
        ),
        (("colour",), "red", "configuration: expected the keys layers, schema, training, got colour"),
        (("layers",), 3, "expected a list with one object a layer"),
        (("layers",), {"0": {}}, "expected a list with one object a layer"),
        (("layers",), "ab", "layer 0: expected an object of sites, got str"),
        (("layers", 0), [], "layer 0: expected an object of sites, got list"),
        (("layers", 0, "query"), 4, "layer 0, query: expected an object of methods"),
        (("layers", 0, "query", "ia4"), {}, "layer 0, query: unknown method 'ia4'; known: lora, dora"),
        (("layers", 0, "query", "lora"), 4, "layer 0, query, lora: expected an object of sizes"),
        (("layers", 0, "query", "lora", "rank"), 0, "LoRA rank 0"),
        (
            ("training",),
            {},
            "training: expected the keys learning_rate (and backbone, schedule, selection if wanted), got",
        ),
        (
            ("training",),
            None,
            "training: expected the keys learning_rate (and backbone, schedule, selection if wanted), got NoneType",
        ),
        (("training", "schedule"), {"interval": 0}, "update schedule, interval 0: expected a whole number ≥ 1"),
    ],
)
def test_what_cannot_be_read_says_why(path, value, message):
    data = copy.deepcopy(GOOD)
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(ConfigurationError) as caught:
        Configuration.from_json(data)
    assert message in str(caught.value)


def test_what_is_no_object_is_no_configuration():
    with pytest.raises(ConfigurationError, match="configuration schema 'list'"):
        Configuration.from_json([])


def choosing(backbone, method=None, sites=("query", "up"), **chosen):
    plain = uniform(backbone, sites, method or Lora(2, 4.0), 1e-3)
    return replace(plain, training=Training(1e-3, selection=Selection(**chosen)))


def test_a_selection_stands_beside_the_table_and_comes_back(tiny_backbone):
    configuration = choosing(tiny_backbone, ratio=0.5, weights="continue")
    assert Configuration.from_json(configuration.to_json()) == configuration
    assert configuration.digest != configuration.supernet.digest
    assert "selection" not in configuration.supernet.to_json()["training"]


def test_a_selection_that_drops_nothing_is_none(tiny_backbone):
    assert choosing(tiny_backbone, ratio=1.0) == choosing(tiny_backbone, ratio=1.0).supernet


def test_a_schedule_and_a_selection_exclude_each_other():
    with pytest.raises(ConfigurationError, match="not both"):
        Training(1e-3, UpdateSchedule(), Selection())


@pytest.mark.parametrize("method", [Dora(2, 4.0), Lora(2, 4.0, init="pissa")])
def test_a_selection_chooses_among_plain_lora_only(tiny_backbone, method):
    with pytest.raises(ConfigurationError, match="chooses among modules with plain LoRA; there is"):
        choosing(tiny_backbone, method).validate(tiny_backbone)


@pytest.mark.parametrize("scope", ["row", "global"])
def test_a_choice_costs_at_most_what_the_dearest_costs(tiny_backbone, scope):
    """Every cut there is, against the one that the budget is held against."""
    configuration = choosing(tiny_backbone, ratio=0.5, scope=scope)
    entries = {(layer, site) for layer, site, _ in configuration.placements()}
    choices = [
        configuration.keeping(set(kept))
        for count in range(1, len(entries))
        for kept in itertools.combinations(sorted(entries), count)
    ]
    costs = [trainable_parameters(plan, tiny_backbone) for plan in choices if configuration.may_become(plan)]
    assert trainable_parameters(configuration, tiny_backbone) == max(costs)
    assert len(set(costs)) > 1
