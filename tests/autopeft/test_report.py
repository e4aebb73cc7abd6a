import json

from autopeft import report
from autopeft.standing import standing
from autopeft.study import Origin, TrialState
from search_spaces.configuration import Configuration, LayerPlan, Training


def some_trials(make_trial):
    return [
        make_trial(0, 0.6, 0, origin=Origin.REFERENCE, label="head only"),
        make_trial(1, 0.7, 64, origin=Origin.CONTROL, label="LoRA r=1 query+value"),
        make_trial(2, 0.8, 128),
        make_trial(3, state=TrialState.FAILED, error="CUDA said no\nTraceback …"),
    ]


def test_the_front_document_has_the_promised_shape(make_study, make_trial):
    study, trials = make_study(), some_trials(make_trial)
    data = json.loads(json.dumps(report.front_document(study, standing(study, trials))))
    assert data["schema"] == "autopeft.front/1"
    assert data["objectives"] == [
        {"name": "accuracy", "direction": "maximise"},
        {"name": "trainable_parameters", "direction": "minimise"},
    ]
    (member,) = data["members"]
    assert member["values"] == {"accuracy": 0.8, "trainable_parameters": 128}
    assert member["trainable_fraction"] == 128 / 3072
    assert member["configuration"]["schema"] == "autopeft.configuration/1"
    assert data["control"][0]["label"] == "LoRA r=1 query+value"
    assert data["budget"] == 512
    assert 0 < data["hypervolume"] <= 1


def test_the_trials_document_has_the_promised_keys(make_study, make_trial):
    data = report.trials_document(make_study(), some_trials(make_trial))
    keys = {"trial", "state", "rung", "replicate", "digest", "values", "configuration", "error"}
    assert data["schema"] == "autopeft.trials/1"
    assert all(keys <= set(row) for row in data["trials"])


def test_tables_name_the_control_the_head_and_the_failures(make_study, make_trial):
    study, trials = make_study(), some_trials(make_trial)
    now = standing(study, trials)
    front = report.front_text(study, now)
    assert "LoRA r=1 query+value" in front
    assert "head only: accuracy 0.6000" in front
    status = report.status_text(study, trials, now)
    assert "trial 3: FAILED: CUDA said no" in status
    assert "Traceback" not in status
    assert "CUDA said no" in report.trials_text(study, trials)
    assert "Traceback" in report.trial_text(study, trials[3], {})


def test_bars_show_the_summed_rank_of_each_layer(make_trial):
    assert report.layer_bars(make_trial().configuration) == "██"
    assert report.layer_bars(Configuration((LayerPlan(), LayerPlan()), Training(1e-3))) == "··"
    assert report.rank_sum(make_trial().configuration) == 4


def test_a_line_says_what_ended(make_study, make_trial):
    trials = some_trials(make_trial)
    assert report.trial_line(make_study(), trials[2], 3, 8) == (
        "[3/8] trial 2: accuracy 0.8000, 128 parameters, 1.5 s (model)"
    )
    assert "failed (model): CUDA said no" in report.trial_line(make_study(), trials[3], 4, 8)
