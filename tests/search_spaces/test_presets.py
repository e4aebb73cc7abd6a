import pytest

from search_spaces.backbone import Backbone
from search_spaces.cost import trainable_parameters
from search_spaces.errors import ConfigurationError
from search_spaces.presets import CONTROL_RANKS, DESCRIPTIONS, RANKS, build, control, layerwise

RATES = (1e-4, 1e-2)
GOOD = "modules:\n- sites: [query, value]\n  ranks: [0, 4]\n"


def write(folder, text):
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_layerwise_has_one_rank_for_each_layer_and_group(tiny_backbone):
    space = build("layerwise", tiny_backbone, RATES)
    assert [ordinal.name for ordinal in space.ordinals[:3]] == [
        "layer 0 query+value rank",
        "layer 0 key+output rank",
        "layer 0 up+down rank",
    ]
    assert space.dimension_count == 2 * 3 + 1
    assert {ordinal.values for ordinal in space.ordinals} == {RANKS}


def test_layerwise_leaves_out_what_the_backbone_lacks(tiny_backbone):
    attention = tuple(tuple(m for m in layer if m.role in ("query", "value")) for layer in tiny_backbone.layers)
    lean = Backbone("lean", "bert", 8, 3072, attention)
    assert [group.sites for group in layerwise(lean, RATES).modules] == [("query", "value")]


def test_every_named_space_can_be_built(tiny_backbone):
    for name in DESCRIPTIONS:
        assert build(name, tiny_backbone, RATES).name == name


def test_a_file_takes_its_name_and_learning_rate_from_outside(tiny_backbone, tmp_path):
    space = build(write(tmp_path, GOOD), tiny_backbone, RATES)
    assert (space.name, space.definition.learning_rate) == ("mine", RATES)


def test_a_file_may_give_its_own(tiny_backbone, tmp_path):
    space = build(write(tmp_path, GOOD + "name: other\nlearning_rate: 1e-3\n"), tiny_backbone, RATES)
    assert (space.name, space.definition.learning_rate) == ("other", (1e-3, 1e-3))


def test_an_unknown_name_lists_those_there_are(tiny_backbone):
    with pytest.raises(
        ConfigurationError,
        match=r"space 'layerwize': neither a named space \(joint, joint/full, layerwise, .*autopeft, diffora, .*\) nor",
    ):
        build("layerwize", tiny_backbone, RATES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modules:\n\t- query\n", "YAML: found character '\\t' that cannot start any token in line 2, column 1"),
        ("", "a space is an object with name and modules, got NoneType"),
        ("- query\n", "a space is an object with name and modules, got list"),
        (GOOD + "layer: each\n", "unknown space key 'layer'; did you mean 'layers'?"),
        (GOOD.replace("query, value", "query, gate"), "layer 0 of tiny has no module 'gate'; it has: query, key"),
        (GOOD.replace("[0, 4]", "[4, 0]"), "values [4, 0]; expected rising whole numbers"),
        (GOOD.replace("[0, 4]", "[0]"), "space mine holds only the empty plan; allow a rank or size above 0"),
        (GOOD + "layers: [[0, 2]]\n", "space layer 2: tiny has layers 0 to 1"),
        (GOOD + "layers: [[-1]]\n", "space layer -1: tiny has layers 0 to 1"),
    ],
)
def test_a_file_that_is_not_valid_is_named_with_the_reason(tiny_backbone, tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        build(path, tiny_backbone, RATES)
    assert f"space file {path}: " in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text_is_named(tiny_backbone, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00modules")
    with pytest.raises(ConfigurationError, match="cannot be read as YAML"):
        build(str(path), tiny_backbone, RATES)


def test_a_file_cannot_run_code(tiny_backbone, tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read as YAML"):
        build(write(tmp_path, "!!python/object/apply:os.getcwd []\n"), tiny_backbone, RATES)


def test_the_control_is_the_rank_sweep_within_the_budget(tiny_backbone):
    sweep = control(tiny_backbone, 512, 1e-3)
    assert list(sweep) == [
        "LoRA r=1 query+value",
        "LoRA r=2 query+value",
        "LoRA r=4 query+value",
        "LoRA r=8 query+value",
        "LoRA r=1 all linear",
        "LoRA r=2 all linear",
    ]
    costs = [trainable_parameters(plan, tiny_backbone) for plan in sweep.values()]
    assert costs == [64, 128, 256, 512, 224, 448]
    assert {plan.training.learning_rate for plan in sweep.values()} == {1e-3}


def test_without_a_tight_budget_the_control_is_whole_and_without_money_empty(tiny_backbone):
    assert len(control(tiny_backbone, 10**9, 1e-3)) == 2 * len(CONTROL_RANKS)
    assert control(tiny_backbone, 63, 1e-3) == {}
