"""Plans carried over by relative depth: the identity at equal depth, in order, and never to nothing."""

import pytest

from search_spaces.backbone import Backbone, ModuleShape
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training, uniform
from search_spaces.errors import ConfigurationError
from search_spaces.methods.lora import Lora
from search_spaces.relative_depth import RelativeDepth, require_sibling
from search_spaces.schedule import UpdateSchedule

COUNTS = [(many, few) for many in (1, 2, 3, 4, 6, 7, 12, 24, 32) for few in (1, 2, 4, 5, 6, 12, 16)]


def plan(*ranks, schedule=None):
    rows = tuple(LayerPlan((Placement("query", Lora(rank, 2.0)),) if rank else ()) for rank in ranks)
    return Configuration(rows, Training(1e-3, schedule))


def ranks(configuration):
    return [row.extent for row in configuration.layers]


def backbone(layers, family="bert", roles=("query", "value")):
    rows = tuple(tuple(ModuleShape(role, f"{i}.{role}", 8, 8) for role in roles) for i in range(layers))
    return Backbone(f"{family}-{layers}", family, 8, 1000, rows)


def test_equal_depth_is_the_identity():
    for count in (1, 2, 5, 12):
        one = plan(*range(count))
        assert RelativeDepth(count, count).carried(one) == one


def test_twelve_layers_on_six_by_hand():
    carried = RelativeDepth(12, 6).carried(plan(1, 2, 0, 4, 8, 0, 0, 0, 16, 32, 0, 2))
    assert ranks(carried) == [2, 4, 8, 0, 32, 2]


def test_six_layers_on_twelve_by_hand():
    assert ranks(RelativeDepth(6, 12).carried(plan(1, 2, 0, 4, 8, 16))) == [1, 1, 2, 2, 0, 0, 4, 4, 8, 8, 16, 16]


def test_four_layers_stand_for_six_by_their_depth():
    assert [RelativeDepth(6, 4).stands_for(layer) for layer in range(4)] == [(0,), (2, 1), (3,), (5, 4)]


@pytest.mark.parametrize(("many", "few"), COUNTS)
def test_layers_keep_their_order_and_no_plan_becomes_empty(many, few):
    depth = RelativeDepth(many, few)
    nearest = [depth.stands_for(layer)[0] for layer in range(few)]
    assert nearest == sorted(nearest)
    assert all(
        abs((own + 0.5) / many - (layer + 0.5) / few) <= 0.5 / min(many, few) for layer, own in enumerate(nearest)
    )
    if many > few:
        assert sorted(own for layer in range(few) for own in depth.stands_for(layer)) == list(range(many))
    for layer in range(many):
        alone = plan(*(4 if own == layer else 0 for own in range(many)))
        assert not depth.carried(alone).is_empty


def test_methods_sizes_and_training_stay_as_they_are():
    schedule = UpdateSchedule(update_fraction=0.5)
    one = plan(8, 8, 8, 8, schedule=schedule)
    carried = RelativeDepth(4, 2).carried(one)
    assert carried == plan(8, 8, schedule=schedule)
    assert carried.digest == plan(8, 8, schedule=schedule).digest


def test_the_empty_plan_stays_empty():
    assert RelativeDepth(12, 6).carried(plan(*[0] * 12)).is_empty


def test_a_plan_of_another_depth_is_refused():
    with pytest.raises(ConfigurationError, match="has 3 layers, the target 4"):
        RelativeDepth(4, 2).carried(plan(1, 2, 3))
    with pytest.raises(ConfigurationError, match="at least one"):
        RelativeDepth(4, 0)


def test_a_sibling_is_of_the_same_family_and_offers_the_same_sites():
    require_sibling(backbone(4), backbone(2))
    with pytest.raises(ConfigurationError, match="same family"):
        require_sibling(backbone(4), backbone(2, "roberta"))
    with pytest.raises(ConfigurationError, match="same sites"):
        require_sibling(backbone(4), backbone(2, roles=("query", "value", "up")))


def test_a_uniform_plan_is_the_same_uniform_plan():
    wide, small = backbone(12), backbone(5)
    carried = RelativeDepth(12, 5).carried(uniform(wide, ["query"], Lora(4, 2.0), 1e-3))
    assert carried == uniform(small, ["query"], Lora(4, 2.0), 1e-3)
