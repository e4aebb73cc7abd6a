import json
from dataclasses import replace

import pytest

from autopeft.errors import ConfigurationError, EvaluationError
from autopeft.settings import CacheMode
from autopeft.study import Direction, Fidelity, Measurement, Objective, Study, TrialState


def test_a_study_comes_back_from_json_as_it_was(make_study):
    study = make_study(hours=1.5, environment={"torch": "2.13"})
    assert Study.from_json(json.loads(json.dumps(study.to_json()))) == study


def test_a_study_of_before_keeps_states_automatically(make_study):
    data = make_study(cache=CacheMode.FP16).to_json()
    assert Study.from_json(data).cache is CacheMode.FP16
    del data["cache"]
    assert Study.from_json(data).cache is CacheMode.AUTO
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Study.from_json({**data, "cache": "big"})


def test_another_schema_is_refused(make_study):
    with pytest.raises(ConfigurationError, match=r"autopeft\.study/9"):
        Study.from_json(make_study().to_json() | {"schema": "autopeft.study/9"})


@pytest.mark.parametrize("change", [{"budget": {"parameters": 3}}, {"surprise": 1}, {"objectives": [{"name": "x"}]}])
def test_a_study_with_wrong_fields_is_refused(make_study, change):
    with pytest.raises(ConfigurationError, match="study cannot be read"):
        Study.from_json(make_study().to_json() | change)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_measurement_is_finite(value):
    with pytest.raises(EvaluationError, match="not finite"):
        Measurement(0, {"accuracy": value})
    with pytest.raises(EvaluationError, match="not finite"):
        Measurement(0, {"accuracy": 0.5}, curve=((1, value),))


@pytest.mark.parametrize("details", [{"importance": [float("nan")]}, {"routing": object()}])
def test_details_are_finite_json(details):
    with pytest.raises(EvaluationError, match="details of a measurement"):
        Measurement(0, {"accuracy": 0.5}, details=details)


def test_a_fidelity_has_at_least_one_step():
    with pytest.raises(ConfigurationError, match="steps 0"):
        Fidelity(0, 1, 1)


def test_only_waiting_and_running_states_are_not_final():
    unfinished = {TrialState.QUEUED, TrialState.RUNNING, TrialState.PAUSED}
    assert {state for state in TrialState if not state.is_final} == unfinished


def test_values_are_frozen(make_study):
    with pytest.raises(AttributeError):
        make_study().seed = 3
    assert replace(make_study(), seed=3).seed == 3


def test_a_study_with_boxes_and_limits_comes_back_as_it_was(make_study):
    objectives = (
        Objective("accuracy", Direction.MAXIMISE),
        Objective("stored_bytes", Direction.MINIMISE, (64.0, 4096.0)),
        Objective("train_seconds", Direction.MINIMISE),
    )
    study = make_study(objectives=objectives, limits={"peak_memory": 1e9})
    assert Study.from_json(json.loads(json.dumps(study.to_json()))) == study


def test_a_record_from_before_boxes_and_limits_opens(make_study):
    data = make_study().to_json()
    assert "limits" not in data
    assert all(set(objective) == {"name", "direction"} for objective in data["objectives"])
    older = Study.from_json(data)
    assert older.limits == {}
    assert [objective.box for objective in older.objectives] == [None, None]
