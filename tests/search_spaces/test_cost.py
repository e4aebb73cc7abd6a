import pytest

from search_spaces.backbone import Backbone, ModuleShape
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training, uniform
from search_spaces.cost import parameters_by_layer, trainable_parameters
from search_spaces.errors import ConfigurationError
from search_spaces.methods.lora import Lora
from search_spaces.methods.mola import Mola


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


def llama_2_7b():
    def layer(index):
        at = f"layers.{index}"
        square = [ModuleShape(role, f"{at}.{role}", 4096, 4096, False) for role in ("query", "key", "value", "output")]
        up = [ModuleShape(role, f"{at}.{role}", 4096, 11008, False) for role in ("up", "gate")]
        return (*square, *up, ModuleShape("down", f"{at}.down", 11008, 4096, False))

    return Backbone("llama-2-7b", "llama", 4096, 6_738_415_616, tuple(layer(index) for index in range(32)))


@pytest.mark.parametrize(
    ("experts", "count"),
    [
        ((5, 5, 5, 5), 105_635_840),
        ((8, 6, 4, 2), 105_635_840),
        ((8, 2, 2, 8), 105_635_840),
        ((2, 4, 6, 8), 105_635_840),
        ((2, 8, 8, 2), 105_635_840),
        ((8, 8, 8, 8), 169_017_344),
        ((4, 4, 4, 4), 84_508_672),
        ((2, 3, 5, 6), 84_508_672),
    ],
)
def test_mola_on_llama_2_7b_counts_as_in_table_1_of_its_paper(experts, count):
    backbone = llama_2_7b()
    rows = [
        LayerPlan(tuple(Placement(role, Mola(experts[layer // 8], 8, 16.0)) for role in backbone.roles))
        for layer in range(32)
    ]
    assert trainable_parameters(Configuration(tuple(rows), Training(3e-4)), backbone) == count


def test_lora_of_rank_64_on_llama_2_7b_counts_as_in_table_1_of_molas_paper():
    backbone = llama_2_7b()
    assert trainable_parameters(uniform(backbone, backbone.roles, Lora(64, 16.0), 3e-4), backbone) == 159_907_840
