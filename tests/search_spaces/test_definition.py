import copy

import pytest

from search_spaces.definition import ModuleGroup, SpaceDefinition
from search_spaces.errors import ConfigurationError

GOOD = {
    "name": "mine",
    "layers": [[0], [1]],
    "modules": [{"sites": ["query", "value"], "ranks": [0, 2, 4]}, {"sites": ["down"], "ranks": [0, 1]}],
    "scaling": 1.0,
    "learning_rate": {"low": 1e-4, "high": 1e-3},
}


def test_a_definition_is_read():
    assert SpaceDefinition.from_json(GOOD) == SpaceDefinition(
        "mine",
        (ModuleGroup(("query", "value"), (0, 2, 4)), ModuleGroup(("down",), (0, 1))),
        ((0,), (1,)),
        1.0,
        (1e-4, 1e-3),
    )


def test_json_goes_both_ways():
    definition = SpaceDefinition.from_json(GOOD)
    assert SpaceDefinition.from_json(definition.to_json()) == definition


def test_only_the_modules_must_be_given():
    definition = SpaceDefinition.from_json({"modules": GOOD["modules"]})
    assert (definition.name, definition.layers, definition.scaling) == ("custom", None, 2.0)
    assert definition.learning_rate == (2e-4, 1e-2)


@pytest.mark.parametrize("rate", [1e-3, "1e-3", {"low": "1e-3", "high": "1e-3"}])
def test_a_learning_rate_may_be_fixed_and_written_as_yaml_misreads_it(rate):
    assert SpaceDefinition.from_json({**GOOD, "learning_rate": rate}).learning_rate == (1e-3, 1e-3)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("learning_rat",), 1e-3, "unknown space key 'learning_rat'; did you mean 'learning_rate'?"),
        (("zebra",), 1, "unknown space key 'zebra'; known: choices, cuts, layers, learning_rate, methods, modules"),
        ((1,), 1, "unknown space key 1; known:"),
        (("schema",), "autopeft.space/9", "space schema 'autopeft.space/9': this version reads 'autopeft.space/1'"),
        (("modules",), None, "space key 'modules': expected a list like"),
        (("modules",), [], "space key 'modules': expected a list like"),
        (("modules",), "query", "space key 'modules': expected a list like"),
        (("modules", 0), "query", "a module group is an object with sites and ranks, got 'query'"),
        (("modules", 0, "rank"), [1], "unknown module group key 'rank'; did you mean 'ranks'?"),
        (
            ("modules", 0, "sites"),
            "query",
            "module group key 'sites': expected a list like [query, value], got 'query'",
        ),
        (("modules", 0, "sites"), [], "module group key 'sites': expected a list"),
        (("modules", 0, "ranks"), 4, "module group key 'ranks': expected a list like [0, 1, 4], got 4"),
        (("modules", 0, "ranks"), [4, 2], "ranks of query+value: values [4, 2]; expected rising whole numbers ≥ 0"),
        (("modules", 0, "ranks"), ["a", 2], "ranks of query+value: values ['a', 2]; expected rising"),
        (("modules", 1, "sites"), ["query"], "space mine: a site stands in two module groups"),
        (("name",), "", "space key 'name': expected a text, got ''"),
        (("name",), 3, "space key 'name': expected a text, got 3"),
        (("layers",), "all", "space key 'layers': expected 'each' or a list like [[0, 1], [2, 3]], got 'all'"),
        (("layers",), [0, 1], "space key 'layers': expected 'each' or a list like"),
        (("layers",), [[0], [True]], "space key 'layers': expected 'each' or a list like"),
        (("layers",), [], "space key 'layers': each layer may stand in one group only"),
        (("layers",), [[0], [0, 1]], "space key 'layers': each layer may stand in one group only"),
        (("scaling",), 0, "space key 'scaling': expected a number above 0, got 0"),
        (("scaling",), "much", "space key 'scaling': expected a number above 0, got 'much'"),
        (("scaling",), True, "space key 'scaling': expected a number above 0, got True"),
        (("scaling",), float("nan"), "space key 'scaling': expected a number above 0"),
        (("learning_rate",), {"low": 1e-3}, "space key 'learning_rate.high': expected a number above 0, got None"),
        (("learning_rate", "hi"), 1e-3, "unknown learning_rate key 'hi'; did you mean 'high'?"),
        (("learning_rate", "low"), 1e-2, "learning_rate: range 0.01 to 0.001; expected 0 < low ≤ high"),
        (("learning_rate", "high"), 2, "learning_rate up to 2.0: expected at most 1"),
    ],
)
def test_what_is_not_valid_says_why(path, value, message):
    data = copy.deepcopy(GOOD)
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(ConfigurationError) as caught:
        SpaceDefinition.from_json(data)
    assert message in str(caught.value)


def test_a_text_is_no_space():
    with pytest.raises(ConfigurationError, match="a space is an object with name and modules, got str"):
        SpaceDefinition.from_json("layerwise")
