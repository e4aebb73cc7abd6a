import pytest

from search_spaces.backbone import Backbone, ModuleShape
from search_spaces.errors import BackboneError, ConfigurationError


def test_roles_come_in_their_fixed_order(tiny_backbone):
    assert tiny_backbone.roles == ("query", "key", "value", "output", "up", "down")
    assert tiny_backbone.layer_count == 2


def test_a_module_is_found_by_its_role(tiny_backbone):
    assert tiny_backbone.module(1, "down") == ModuleShape("down", "encoder.layer.1.output.dense", 16, 8)


def test_a_missing_module_names_those_there_are(tiny_backbone):
    with pytest.raises(
        ConfigurationError, match="layer 0 of tiny has no module 'gate'; it has: query, key, value, output, up, down"
    ):
        tiny_backbone.module(0, "gate")


def test_json_goes_both_ways(tiny_backbone):
    assert Backbone.from_json(tiny_backbone.to_json()) == tiny_backbone


@pytest.mark.parametrize("damage", [lambda d: d.pop("layers"), lambda d: d.update(colour="red")])
def test_a_damaged_description_is_refused(tiny_backbone, damage):
    data = tiny_backbone.to_json()
    damage(data)
    with pytest.raises(BackboneError, match="not a backbone description"):
        Backbone.from_json(data)
