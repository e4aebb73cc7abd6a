import pytest

from search_spaces.backbone import LayerShape, ModuleShape, NormShape
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training, uniform
from search_spaces.cost import (
    forward_flops,
    lowest_trainable_layer,
    parameters_by_layer,
    stored_bytes,
    trainable_parameters,
)
from search_spaces.errors import ConfigurationError
from search_spaces.methods import METHODS, LayerMethod
from search_spaces.methods.bias import Bias
from search_spaces.methods.dora import Dora
from search_spaces.methods.hira import Hira
from search_spaces.methods.ia3 import Ia3
from search_spaces.methods.loha import Loha
from search_spaces.methods.lokr import Lokr, split
from search_spaces.methods.lora import Lora
from search_spaces.methods.mola import Mola
from search_spaces.methods.norm import Norm
from search_spaces.methods.oft import Oft
from search_spaces.methods.parallel import Parallel
from search_spaces.methods.prefix import Prefix
from search_spaces.methods.serial import Serial
from search_spaces.methods.vera import Vera

UP = ModuleShape("up", "x", 12, 40)
DOWN = ModuleShape("down", "x", 40, 12)
TRANSPOSED = ModuleShape("qkv", "x", 12, 36, transposed=True)
LAYER = LayerShape(12, 12, 6, (NormShape("a", 12), NormShape("b", 4, bias=False)))

BY_HAND = [
    (Lora(3, 6.0), UP, 3 * (12 + 40)),
    (Dora(3, 6.0), UP, 3 * (12 + 40) + 40),
    (Ia3(), UP, 40),
    (Ia3(), DOWN, 40),
    (Hira(3), UP, 3 * (12 + 40)),
    (Loha(3, 6.0), UP, 2 * 3 * (12 + 40)),
    (Lokr(1, 2.0), UP, 5 * 3 + 1 * (8 + 4)),
    (Lokr(4, 2.0), UP, 5 * 3 + 8 * 4),
    (Lokr(1, 2.0, 2), UP, 2 * 2 + 1 * (20 + 6)),
    (Vera(5), UP, 5 + 40),
    (Oft(4), UP, 3 * 6),
    (Mola(5, 3, 6.0), UP, 5 * (3 * (12 + 40) + 12)),
    (Mola(1, 3, 6.0), UP, 3 * (12 + 40)),
    (Bias(), UP, 40),
    (Norm(), LAYER, 12 + 12 + 4),
    (Serial(5), LAYER, 2 * 12 * 5 + 5 + 12),
    (Parallel(5), LAYER, 2 * 12 * 5 + 5 + 12),
    (Prefix(7), LAYER, 2 * 7 * 6),
]


@pytest.mark.parametrize(("method", "shape", "count"), BY_HAND)
def test_counts_are_those_by_hand(method, shape, count):
    assert method.parameter_count(shape) == method.stored_count(shape) == count


@pytest.mark.parametrize("method", [Serial(5), Parallel(5), Prefix(7)])
def test_the_paper_leaves_biases_out(method):
    assert method.count_without_biases(LAYER) == {"prefix": 84}.get(method.name, 120)


@pytest.mark.parametrize("init", ["pissa", "olora", "corda", "corda_ipm", "lora_ga"])
def test_a_start_that_moves_the_weight_is_stored_beside(init):
    method = Lora(3, 6.0, init=init)
    assert method.stored_count(UP) == 2 * method.parameter_count(UP)


@pytest.mark.parametrize("method", [method for method, _, _ in BY_HAND] + [Lora(2, 4.0, "rank-stabilised", "pissa")])
def test_json_goes_both_ways(method):
    assert METHODS[method.name].from_json(method.to_json()) == method


@pytest.mark.parametrize("name", METHODS)
def test_each_method_says_where_it_may_stand_and_refuses_sizes_that_it_does_not_know(name):
    assert METHODS[name].name == name
    assert METHODS[name].sites
    with pytest.raises(ConfigurationError, match=f"{name} takes .*, got colour"):
        METHODS[name].from_json({"colour": 1})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Dora(0, 1.0), "DoRA rank 0: expected a whole number ≥ 1; leave it out for 0"),
        (lambda: Hira(1.5), "HiRA rank 1.5: expected a whole number"),
        (lambda: Lokr(1, -1.0), r"LoKr alpha -1.0: expected a number in \(0, 1e6\)"),
        (lambda: Lokr(1, 1.0, 0), "LoKr factor 0"),
        (lambda: Vera(1, 0), "VeRA d_initial 0"),
        (lambda: Vera(1, 0.1, -1), "VeRA projection_key -1: expected a whole number ≥ 0"),
        (lambda: Oft(1), "OFT block_size 1: expected a whole number ≥ 2"),
        (lambda: Serial(True), "serial adapter size True"),
        (lambda: Parallel(1, "4"), "parallel adapter scaling '4'"),
        (lambda: Prefix(0), "prefix length 0"),
        (lambda: Lora(1, 1.0, "r"), "LoRA scaling 'r': expected one of alpha/r, rank-stabilised"),
        (lambda: Lora(1, 1.0, init="zero"), "LoRA init 'zero': expected one of default, pissa"),
        (lambda: Lora(3, 1.0, init="orthogonal"), "LoRA rank 3: the orthogonal initialisation needs an even rank"),
    ],
)
def test_sizes_that_nothing_can_have_are_refused(build, message):
    with pytest.raises(ConfigurationError, match=message):
        build()


@pytest.mark.parametrize(
    ("method", "module", "message"),
    [
        (Bias(), ModuleShape("up", "x", 2, 2, bias=False), "bias at x: this module has none"),
        (Oft(5), UP, "OFT block_size 5 at x: has to divide the input's width, 12"),
        (Oft(4), TRANSPOSED, "peft's OFT has no layer for weights kept as"),
        (Loha(1, 1.0), TRANSPOSED, "peft's LoHa has no layer for weights kept as"),
        (Lokr(1, 1.0), TRANSPOSED, "peft's LoKr has no layer for weights kept as"),
        (Lora(13, 1.0, init="pissa"), UP, "the initialisation pissa takes at most 12 on a module of 12 to 40"),
        (Lora(7, 1.0, init="lora_ga"), UP, "the initialisation lora_ga takes at most 6"),
        (Lora(2, 1.0, init="olora"), TRANSPOSED, "peft's OLoRA does not know weights kept as"),
    ],
)
def test_a_module_that_a_method_does_not_fit_says_why(method, module, message):
    with pytest.raises(ConfigurationError, match=message):
        method.require_fit(module)


def test_a_width_is_split_as_near_to_a_square_as_it_goes():
    assert [split(n, -1) for n in (256, 128, 127, 384, 1536)] == [(16, 16), (8, 16), (1, 127), (16, 24), (32, 48)]
    assert [split(384, factor) for factor in (8, 5)] == [(8, 48), (4, 96)]


def test_a_method_stands_only_at_its_sites():
    with pytest.raises(ConfigurationError, match="serial cannot stand at 'query'; it may stand at: feed_forward"):
        LayerPlan((Placement("query", Serial(2)),))
    with pytest.raises(ConfigurationError, match="lora cannot stand at 'norms'"):
        LayerPlan((Placement("norms", Lora(1, 1.0)),))


def test_updates_that_add_up_may_share_a_module_and_others_stand_alone():
    LayerPlan((Placement("up", Lora(1, 1.0)), Placement("up", Ia3()), Placement("up", Bias())))
    LayerPlan(tuple(Placement("up", method) for method in (Lora(1, 1.0), Loha(1, 1.0), Lokr(1, 1.0), Vera(1))))
    with pytest.raises(ConfigurationError, match="dora and lora at 'up': of updates of one weight only lora, loha, "):
        LayerPlan((Placement("up", Lora(1, 1.0)), Placement("up", Dora(1, 1.0))))
    with pytest.raises(ConfigurationError, match="lora and vera at 'up': LoRA init 'pissa' starts from the weight's"):
        LayerPlan((Placement("up", Lora(1, 1.0, init="pissa")), Placement("up", Vera(1))))


def test_the_size_of_a_row_is_the_sum_over_its_methods():
    row = LayerPlan((Placement("up", Lora(3, 1.0)), Placement("up", Ia3()), Placement("attention", Prefix(5))))
    assert row.extent == 3 + 1 + 5


MIXED_ROWS = (
    LayerPlan(),
    LayerPlan(
        (
            Placement("query", Lora(2, 4.0, init="pissa")),
            Placement("feed_forward", Serial(3)),
            Placement("attention", Prefix(2)),
            Placement("norms", Norm()),
        )
    ),
)


def test_costs_add_up_over_the_methods_of_a_layer(tiny_backbone):
    plan = Configuration(MIXED_ROWS, Training(1e-3))
    lora, serial, prefix, norms = 2 * 16, 2 * 8 * 3 + 3 + 8, 2 * 2 * 8, 4 * 8
    assert parameters_by_layer(plan, tiny_backbone) == (0, lora + serial + prefix + norms)
    assert stored_bytes(plan, tiny_backbone) == 4 * (2 * lora + serial + prefix + norms)
    assert stored_bytes(plan, tiny_backbone, 2) == 2 * (2 * lora + serial + prefix + norms)
    added = 4 * 8 * 3 * 10 + 4 * 2 * 8 * 10
    assert forward_flops(plan, tiny_backbone, 10) == 2 * lora * 10 + added
    assert forward_flops(plan, tiny_backbone, 10, merged=True) == added
    assert lowest_trainable_layer(plan) == 1
    assert lowest_trainable_layer(Configuration((LayerPlan(),), Training(1e-3))) is None


def test_a_method_that_a_family_refuses_is_refused_with_its_reason(tiny_backbone):
    data = tiny_backbone.to_json() | {"refusals": [["prefix", "no such attention"]]}
    backbone = type(tiny_backbone).from_json(data)
    with pytest.raises(ConfigurationError, match="prefix on bert: no such attention"):
        trainable_parameters(Configuration(MIXED_ROWS, Training(1e-3)), backbone)


def test_a_uniform_plan_names_a_site_that_no_layer_has(tiny_backbone):
    with pytest.raises(ConfigurationError, match="no layer of tiny has a site 'gate'"):
        uniform(tiny_backbone, ("query", "gate"), Lora(1, 1.0), 1e-3)


def test_layer_methods_are_those_that_stand_at_no_module():
    assert [name for name, method in METHODS.items() if issubclass(method, LayerMethod)] == [
        "norm",
        "serial",
        "parallel",
        "prefix",
    ]
