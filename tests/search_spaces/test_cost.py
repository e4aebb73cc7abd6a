import pytest

from search_spaces.configuration import Configuration, LayerPlan, Placement, Training, uniform
from search_spaces.cost import parameters_by_layer, trainable_parameters
from search_spaces.errors import ConfigurationError
from search_spaces.methods.lora import Lora


def test_parameters_are_summed_by_layer(tiny_backbone):
    rows = (LayerPlan((Placement("query", Lora(2, 4.0)), Placement("down", Lora(1, 2.0)))), LayerPlan())
    configuration = Configuration(rows, Training(1e-3))
    assert parameters_by_layer(configuration, tiny_backbone) == (2 * (8 + 8) + (16 + 8), 0)
    assert trainable_parameters(configuration, tiny_backbone) == 56


def test_nothing_inserted_costs_nothing(tiny_backbone):
    assert trainable_parameters(Configuration((LayerPlan(), LayerPlan()), Training(1e-3)), tiny_backbone) == 0


def test_the_learning_rate_costs_nothing(tiny_backbone):
    plans = [uniform(tiny_backbone, ("query",), Lora(1, 2.0), rate) for rate in (1e-4, 1e-2)]
    assert trainable_parameters(plans[0], tiny_backbone) == trainable_parameters(plans[1], tiny_backbone) == 32


def test_a_configuration_of_another_backbone_has_no_cost(tiny_backbone):
    with pytest.raises(ConfigurationError, match="the configuration has 1 layers, tiny has 2"):
        trainable_parameters(Configuration((LayerPlan(),), Training(1e-3)), tiny_backbone)
