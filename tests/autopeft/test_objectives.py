import pytest

from autopeft.errors import ConfigurationError
from autopeft.objectives import KINDS, LIMITS, asked_for, describe, figures, parse, parse_limit, point, show
from autopeft.settings import SearchSettings
from autopeft.study import PARAMETERS, Direction, Objective
from autopeft.tasks import METRICS
from autopeft.tasks.metrics import ALIASES

METRIC_NAMES = {**{name: name for name in METRICS}, **ALIASES}


def names(text, metric="accuracy"):
    return [objective.name for objective in parse(text, metric, METRIC_NAMES)]


@pytest.mark.parametrize("name", KINDS)
def test_every_cost_can_be_named_and_is_minimised(name):
    quality, cost = parse(f"accuracy,{name}", "accuracy", METRIC_NAMES)
    assert quality == Objective("accuracy", Direction.MAXIMISE)
    assert cost == Objective(name, Direction.MINIMISE)


def test_the_quality_comes_first_and_the_costs_keep_their_order():
    assert names(" forward-flops, Accuracy ,train_seconds") == ["accuracy", "forward_flops", "train_seconds"]
    assert names("loss,trainable_parameters,peak_memory,mcc", "matthews") == [
        "matthews",
        "loss",
        PARAMETERS,
        "peak_memory",
    ]
    assert names("acc,peak_memory_bytes,flops") == ["accuracy", "peak_memory", "forward_flops"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accuracy,forward_flop", "objective 'forward_flop': did you mean 'forward_flops'"),
        ("accuracy,acuracy", "objective 'acuracy': did you mean 'accuracy'"),
        ("accuracy,zzz", "objective 'zzz': known here: accuracy, trainable_parameters, stored_bytes, forward_flops"),
        ("macro_f1,loss", "objective 'macro_f1': the metric of this task is accuracy; --metric chooses another"),
        ("accuracy,loss,loss", "loss is named twice"),
        ("accuracy,flops,forward_flops", "forward_flops is named twice"),
        ("trainable_parameters,loss", "accuracy, the quality of this task, has to be among them"),
        ("", "accuracy, the quality of this task, has to be among them"),
        ("accuracy", "expected accuracy and one to 3 costs"),
        ("accuracy,loss,peak_memory,stored_bytes,forward_flops", "got 5 in all"),
    ],
)
def test_what_cannot_be_traded_off_is_refused_with_the_reason(text, message):
    with pytest.raises(ConfigurationError, match=message):
        parse(text, "accuracy", METRIC_NAMES)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("peak_memory", "16GB", 16e9),
        ("peak_memory", "512 MiB", 512 * 2**20),
        ("peak_memory", "1000", 1000),
        ("stored_bytes", "1.5mb", 1.5e6),
        ("train_seconds", "60", 60),
        ("train_seconds", "0.5s", 0.5),
        ("inference_seconds", "20ms", 0.02),
        ("forward_flops", "2.5M", 2.5e6),
        ("forward_flops", "5MFLOP", 5e6),
        ("forward_flops", "1e6", 1e6),
    ],
)
def test_limits_are_amounts_with_their_units(name, text, value):
    assert parse_limit(name, text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("peak_memory", "16 apples"),
        ("peak_memory", "60s"),
        ("peak_memory", "0"),
        ("peak_memory", "-1GB"),
        ("peak_memory", ""),
        ("peak_memory", "nan"),
        ("train_seconds", "16GB"),
        ("train_seconds", "2ks"),
        ("forward_flops", "5MB"),
    ],
)
def test_a_limit_of_another_unit_or_none_is_refused_with_an_example(name, text):
    with pytest.raises(ConfigurationError, match=f"limit on {name} '{text}': expected an amount above 0 such as"):
        parse_limit(name, text)


def test_settings_become_objectives_and_limits():
    plain, none = asked_for(SearchSettings(), "accuracy", METRIC_NAMES)
    assert [objective.name for objective in plain] == ["accuracy", PARAMETERS]
    assert none == {}
    settings = SearchSettings(objectives="accuracy,train_seconds", max_memory="1GB", max_train_seconds="60")
    objectives, limits = asked_for(settings, "accuracy", METRIC_NAMES)
    assert [objective.name for objective in objectives] == ["accuracy", "train_seconds"]
    assert limits == {"peak_memory": 1e9, "train_seconds": 60}
    assert set(LIMITS) <= set(SearchSettings.__slots__)
    assert set(LIMITS.values()) <= set(KINDS)


def test_exact_figures_need_no_measurement_and_measured_ones_do(make_study, make_trial):
    objectives = parse("accuracy,stored_bytes,peak_memory", "accuracy", METRIC_NAMES)
    study, trial = make_study(objectives=objectives), make_trial(0, 0.7)
    assert figures(study, trial, ["stored_bytes", "peak_memory"]) == {"stored_bytes": 256}
    assert point(study, trial) is None
    measured = make_trial(1, 0.7, values={"accuracy": 0.7, PARAMETERS: 64, "peak_memory": 2e6})
    assert point(study, measured) == (0.7, 256, 2e6)
    older = make_trial(1, 0.7, values={"accuracy": 0.7, PARAMETERS: 64, "peak_memory_bytes": 3e6})
    assert point(study, older) == (0.7, 256, 3e6)
    assert figures(study, make_trial(2), ["stored_bytes"]) == {}


def test_values_are_shown_in_their_units():
    assert show("accuracy", 0.5) == "0.5000"
    assert show(PARAMETERS, 12345) == "12,345"
    assert show("stored_bytes", 1536) == "1.536 kB"
    assert show("peak_memory", 2.5e9) == "2.5 GB"
    assert show("forward_flops", 999) == "999 FLOP"
    assert (show("train_seconds", 12.345), show("inference_seconds", 0.0012345)) == ("12.35 s", "1.23 ms")


def test_a_study_says_what_it_trades_off_beyond_the_usual(make_study):
    assert describe(make_study()) == []
    study = make_study(
        objectives=parse("accuracy,forward_flops,train_seconds", "accuracy", {}), limits={"peak_memory": 1e9}
    )
    assert describe(study) == [
        "trade    accuracy against forward_flops (exact), train_seconds (measured)",
        "limits   peak_memory ≤ 1 GB (measured)",
    ]
