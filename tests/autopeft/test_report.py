import json
import subprocess
import sys
from dataclasses import replace

from autopeft import report
from autopeft.objectives import parse
from autopeft.standing import standing
from autopeft.study import PARAMETERS, Origin, TrialState
from search_spaces.configuration import Configuration, LayerPlan, Training
from search_spaces.schedule import UpdateSchedule
from search_spaces.selection import Selection


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


def test_every_figure_of_a_trial_has_its_unit_and_stands_in_one_column(make_study, make_trial):
    values = {"accuracy": 0.8, "train_seconds": 1.0, "evaluate_seconds": 0.5403}
    lines = report.trial_text(make_study(), make_trial(), values).splitlines()
    shown = {line.split()[0]: line for line in lines if line.split()[0] in values}
    assert shown["evaluate_seconds"].endswith(" 0.54 s")
    assert shown["accuracy"].index("0.8000") == shown["evaluate_seconds"].index("0.54")


def test_an_origin_of_any_length_keeps_the_columns(make_study, make_trial):
    trials = [make_trial(number, 0.7, 64, origin=origin) for number, origin in enumerate(Origin)]
    _, *rows = report.trials_text(make_study(), trials).splitlines()
    assert len({row.index("0.7000") for row in rows}) == 1


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


def test_a_trial_with_an_update_schedule_says_what_it_saved(make_study, make_trial):
    trial = make_trial()
    schedule = UpdateSchedule(update_fraction=0.5, interval=5)
    sparse = replace(trial, configuration=replace(trial.configuration, training=Training(1e-3, schedule)))
    found = {"active_parameters": 64.0, "parameters": 128, "saved_bytes": 750, "saved_bytes_of_all": 1000, "probes": 3}
    text = report.trial_text(make_study(), sparse, {}, {"importance": found})
    assert "schedule       update fraction 0.5, suppressed fraction 0.5, suppression factor 0.25, interval 5" in text
    assert "updated        64 of 128 parameters a step on average, 3 probes" in text
    assert "kept           750 of 1,000 bytes for a backward pass at most (75%)" in text
    assert "schedule" not in report.trial_text(make_study(), trial, {})


def test_a_trial_that_chose_its_modules_shows_gates_and_margin(make_study, make_trial):
    trial = make_trial()
    sites = sorted({site for _, site, _ in trial.configuration.placements()})
    training = Training(1e-3, selection=Selection(ratio=0.5))
    choosing = replace(trial, configuration=replace(trial.configuration, training=training))
    found = {
        "scores": {site: [0.6, 0.4] for site in sites},
        "kept": [[0, site] for site in sites],
        "margins": [0.2],
        "parameters": 64,
        "supernet_parameters": 128,
        "search_steps": 6,
        "paid_steps": 12,
    }
    text = report.trial_text(make_study(), choosing, {}, {"selection": found})
    assert "selection      ratio 0.5, scope row, relaxation sigmoid, order 1" in text
    assert (
        f"kept           {len(sites)} of {2 * len(sites)} modules, 64 of 128 parameters, smallest margin 0.2000" in text
    )
    assert "searched       6 steps, paid for with 12 of the trial's" in text
    assert f"  {sites[0]:<12} 0.600* 0.400" in text
    assert report.layer_bars(choosing.configuration) not in text


def test_routers_are_shown_by_layer(make_study, make_trial):
    first = {"experts": 2, "load": [0.75, 0.25], "active": 2.0, "entropy": 0.912, "redundancy": 0.0314}
    second = {"active": 1.5, "entropy": 0.2, "redundancy": 1.0}
    details = {"routing": {"layers": [first, None, second], "modules": []}}
    lines = report.trial_text(make_study(), make_trial(), {}, details).splitlines()[-3:]
    assert " ".join(lines[1].split()) == "layer 0 0.75 0.25 2.00 a token entropy 0.912 distance 0.0314"
    assert lines[2].split()[:4] == ["layer", "2", "(modules", "differ)"]


def three_objectives(make_study, make_trial):
    study = make_study(
        objectives=parse("accuracy,forward_flops,peak_memory", "accuracy", {}), limits={"peak_memory": 5e6}
    )
    values = {"accuracy": 0.8, PARAMETERS: 64, "train_seconds": 1.0, "evaluate_seconds": 0.5}
    trials = [
        make_trial(0, 0.8, values=values | {"peak_memory": 2e6}),
        make_trial(1, 0.9, values=values | {"peak_memory": 9e6}),
        make_trial(2, 0.9, values=values),
    ]
    return study, trials


def test_further_objectives_are_columns_of_every_table(make_study, make_trial):
    study, trials = three_objectives(make_study, make_trial)
    now = standing(study, trials)
    front = report.front_text(study, now).splitlines()
    heads = ["trial", "accuracy", "parameters", "fraction", "added FLOPs", "peak memory", "layers"]
    assert [front[0].index(head) for head in heads] == sorted(front[0].index(head) for head in heads)
    assert "2.048 kFLOP           2 MB   ██" in front[1]
    assert "left out: trial 1 over the limit peak_memory ≤ 5 MB" in front
    assert "left out: trial 2 without a figure of every objective" in front
    assert "2.048 kFLOP         2 MB" in report.trials_text(study, trials)
    assert report.trial_line(study, trials[0], 1, 8) == (
        "[1/8] trial 0: accuracy 0.8000, 64 parameters, added FLOPs 2.048 kFLOP, peak memory 2 MB, 1.5 s (model)"
    )
    status = report.status_text(study, trials, now)
    assert "trade    accuracy against forward_flops (exact), peak_memory (measured)" in status
    assert "limits   peak_memory ≤ 5 MB (measured)" in status


def test_the_front_document_says_objectives_boxes_limits_and_what_is_left_out(make_study, make_trial):
    study, trials = three_objectives(make_study, make_trial)
    data = json.loads(json.dumps(report.front_document(study, standing(study, trials))))
    assert [objective["name"] for objective in data["objectives"]] == ["accuracy", "forward_flops", "peak_memory"]
    assert data["members"][0]["values"] == {
        "accuracy": 0.8,
        "trainable_parameters": 64,
        "forward_flops": 2048,
        "peak_memory": 2e6,
    }
    assert data["box"][2] == {
        "objective": "peak_memory",
        "best": 1e6,
        "worst": 4e6,
        "scale": "log",
        "unit": "bytes",
        "origin": "measured",
    }
    assert data["limits"] == {"peak_memory": 5e6}
    assert data["left_out"] == {"limits": {"peak_memory": [1]}, "lacking": [2]}
    assert report.status_document(study, trials, standing(study, trials))["over_limits"] == {"peak_memory": [1]}


def test_the_front_says_repeats_and_odds(make_study, make_trial):
    first, second, other = make_trial(1, 0.7), make_trial(2, 0.8, digest="x"), make_trial(3, 0.9, 128, digest="y")
    again = make_trial(4, 0.6, digest="x", replicate=1)
    study = make_study()
    now = standing(study, [first, second, again, other])
    odds = {first.digest: 0.45, "y": 0.987}
    text = report.front_text(study, now, odds=odds, near=[second]).splitlines()
    assert text[0].endswith("learning rate   probability")
    assert text[1].endswith("45%")
    assert text[2].endswith("99%")
    assert text[3] == "may be on it as well:"
    assert text[4].startswith("    2") and text[4].endswith("mean of 2")
    assert report.odds_document(now, {"y": 0.5}, [second])["probabilities"] == [
        {"trial": 1, "probability": None},
        {"trial": 3, "probability": 0.5},
        {"trial": 2, "probability": None},
    ]


def test_bitsandbytes_tells_nobody_which_kernels_it_lacks():
    said = (
        "import autopeft, logging; print(logging.getLogger('bitsandbytes.backends.cpu').isEnabledFor(logging.WARNING))"
    )
    assert subprocess.run([sys.executable, "-P", "-c", said], capture_output=True, text=True).stdout == "False\n"


def test_reading_a_record_imports_nothing_heavy():
    heavy = ("torch", "transformers", "scipy", "pandas", "botorch", "streamlit")
    code = f"import sys, autopeft.report, autopeft.store; print(sorted(set(sys.modules) & set({heavy!r})))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"
