"""``probes --space`` and ``search --dry-run --prior``: what was learned once, as a space and as a prior."""

import json

import pytest
import yaml

from autopeft.cli.probing import importance, select
from autopeft.probe import Probe, ProbeKind
from autopeft.store import Store
from search_spaces.definition import SpaceDefinition
from search_spaces.space import SearchSpace

TEXTS = dict.fromkeys(("model", "task", "data_sha256", "split_sha256"), "x") | {"model_sha256": "0" * 64}
REST = {"configuration": {}, "settings": {}, "seed": 0, "repeats": 1, "details": {}}
MATRIX = Probe("cut-me", ProbeKind.SELECTION, **TEXTS, **REST, scores={"query": [0.9, 0.1], "up": [0.2, 0.8]})
LAYERS = Probe("layers", ProbeKind.IMPORTANCE, **TEXTS, **REST, scores={"layer": [0.5, -0.5]})


@pytest.fixture(autouse=True)
def _probes(tmp_path):
    """Two probes in the record of the folder that commands run in."""
    with Store.open(f"sqlite:///{tmp_path}/autopeft.db", create=True) as store:
        store.record_probe(MATRIX)
        store.record_probe(LAYERS)


def test_a_matrix_is_shown_as_a_space_of_its_cuts(autopeft, tiny_backbone):
    code, out, _ = autopeft("probes", "selection", "--space")
    assert code == 0
    assert out.startswith(f"# cuts of probe cut-me, SHA-256 {MATRIX.sha256}\n")
    data = yaml.safe_load(out)
    assert "learning_rate" not in data  # that of the task
    space = SearchSpace(SpaceDefinition.from_json(data), tiny_backbone)
    assert space.size > 10
    assert space.largest_cost == 2 * 32 * (16 + 24)  # all four modules at rank 32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--space"], "--space needs the name of a probe"), (["layers", "--space"], "scores of whole layers")],
)
def test_what_has_no_matrix_is_no_space(autopeft, arguments, message):
    code, _, err = autopeft("probes", *arguments)
    assert code == 2
    assert message in err


def test_a_dry_run_says_which_prior_it_would_believe(autopeft, tmp_path):
    small = ("search", "--dry-run", "--steps", "2", "--train-rows", "16", "--validation-rows", "8", "--batch-size", "2")
    (tmp_path / "hand.json").write_text(json.dumps({"layer": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}))
    code, out, err = autopeft(*small, "--prior", "hand.json", "--db", tmp_path / "none-yet.db")
    assert code == 0, err
    assert "prior    hand.json (" in out
    assert not (tmp_path / "none-yet.db").exists()
    code, _, err = autopeft(*small, "--prior", "layers")
    assert code == 2
    assert "scores for 2 layers" in err
    code, _, err = autopeft(*small, "--prior", "no-such-probe")
    assert code != 0
    assert "no-such-probe" in err


def test_both_probes_take_the_same_options_of_a_run():
    shared = {"model", "task", "modules", "rank", "repeats", "steps", "seed", "name", "db", "as_json"}
    for command in (importance, select):
        assert shared <= set(command.__signature__.parameters)
    assert "step_size" not in select.__signature__.parameters
