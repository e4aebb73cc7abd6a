import json
from dataclasses import replace

import pytest

from autopeft.errors import ConfigurationError
from autopeft.probe import Probe, ProbeKind, require_scores

PROBE = Probe(
    name="rooms-importance-1",
    kind=ProbeKind.IMPORTANCE,
    model="tiny",
    model_sha256="a" * 64,
    task="rooms",
    data_sha256="b" * 64,
    configuration={"schema": "autopeft.configuration/1"},
    settings={"steps": 100},
    seed=0,
    repeats=2,
    split_sha256="c" * 64,
    scores={"layer": [0.5, None, -1.0]},
    details={"runs": []},
)


def test_a_probe_goes_through_json_and_keeps_its_hash():
    again = Probe.from_json(json.loads(json.dumps(PROBE.to_json())))
    assert again == PROBE
    assert again.sha256 == PROBE.sha256 != replace(PROBE, seed=1).sha256
    assert PROBE.layer_count == 3


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1, 2], "expected lists of a number"),
        ({}, "expected lists of a number"),
        ({"layer": "high"}, "scores of layer: .*got str"),
        ({"layer": [1, "high"]}, "got 'high'"),
        ({"layer": [1, float("nan")]}, "got nan"),
        ({"query": [1, 2], "value": [1]}, r"lists of \[1, 2\] values"),
        ({"layer": [None, None]}, "no value at all"),
    ],
)
def test_what_are_no_scores_is_refused(scores, message):
    with pytest.raises(ConfigurationError, match=message):
        require_scores(scores)


@pytest.mark.parametrize("change", [{"schema": "autopeft.probe/9"}, {"kind": "weather"}, {"colour": "red"}])
def test_what_is_no_probe_is_refused(change):
    with pytest.raises(ConfigurationError, match="probe"):
        Probe.from_json(PROBE.to_json() | change)
