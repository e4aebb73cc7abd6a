"""What ``--prior`` may name, and that it stands in the study."""

import json
from dataclasses import replace

import pytest

from autopeft import asking
from autopeft.errors import ConfigurationError, NotFoundError
from autopeft.priors import resolve
from autopeft.probe import Guide, Probe, ProbeKind
from autopeft.study import Study

SCORES = {"layer": [0.5, -0.5]}


class Shelf:
    """The probes of a record."""

    def __init__(self, *probes):
        self.probes = probes

    def probe(self, wanted, model_sha256=None):
        for probe in self.probes:
            if probe.name == wanted or (probe.kind == wanted and probe.model_sha256 == model_sha256):
                return probe
        raise NotFoundError(f"no probe {wanted!r}")


@pytest.fixture
def study(make_study):
    return replace(make_study(), proposer="closed-form")


@pytest.fixture
def probe(study):
    names = ("model", "task", "data_sha256", "split_sha256")
    texts = dict.fromkeys(names, "x")
    plain = {"configuration": {}, "settings": {}, "seed": 0, "repeats": 1, "scores": SCORES, "details": {}}
    return Probe("rooms-importance-1", ProbeKind.IMPORTANCE, model_sha256=study.model.sha256, **texts, **plain)


def test_a_probe_is_named_by_its_name_or_kind_and_kept_with_its_hash(study, probe):
    for asked in ("rooms-importance-1", "importance"):
        assert resolve(asked, Shelf(probe), study) == (Guide(probe.name, probe.sha256, {"layer": [0.5, -0.5]}),)
    with pytest.raises(NotFoundError):
        resolve("selection", Shelf(probe), study)


def test_a_file_holds_scores_on_their_own_or_those_of_a_probe(study, probe, tmp_path):
    for number, data in enumerate((SCORES, probe.to_json())):
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps(data))
        [guide] = resolve(str(file), Shelf(), study)
        assert (guide.name, guide.scores) == (file.name, SCORES)
        assert len(guide.sha256) == 64


def test_several_are_named_with_commas(study, probe, tmp_path):
    file = tmp_path / "hand.json"
    file.write_text('{"query": [1, 0]}')
    assert [guide.name for guide in resolve(f"importance, {file}", Shelf(probe), study)] == [probe.name, "hand.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", "cannot be read as JSON"),
        ('{"layer": [1, 2, 3]}', "scores for 3 layers, tiny has 2"),
        ('{"colour": [1, 2]}', "scores for colour; tiny has"),
        ('{"layer": ["high", 2]}', "got 'high'"),
        ("[1, 2]", "expected lists of a number"),
    ],
)
def test_a_file_that_is_no_prior_says_why(study, tmp_path, text, message):
    file = tmp_path / "hand.json"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=message) as error:
        resolve(str(file), Shelf(), study)
    assert str(error.value).startswith(f"prior {file}: ")


def test_a_missing_file_and_nothing_named_are_refused(study):
    with pytest.raises(ConfigurationError, match=r"prior none\.json: cannot be read as JSON: No such file"):
        resolve("none.json", Shelf(), study)
    with pytest.raises(ConfigurationError, match="expected names of probes"):
        resolve(" , ", Shelf(), study)


def test_a_proposer_that_follows_no_prior_is_refused(study, probe):
    with pytest.raises(ConfigurationError, match="proposer sobol follows no prior"):
        resolve("importance", Shelf(probe), replace(study, proposer="sobol"))


def test_the_prior_stands_in_the_study_and_reaches_the_proposer(study, probe):
    guided = replace(study, guides=resolve("importance", Shelf(probe), study))
    again = Study.from_json(json.loads(json.dumps(guided.to_json())))
    assert again.guides == guided.guides
    assert asking.demands(again, ()).prior is not None
    assert "guides" not in study.to_json()
    assert asking.demands(study, ()).prior is None
