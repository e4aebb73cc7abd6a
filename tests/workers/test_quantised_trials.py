"""Trials on quantised backbones say so, keep their states apart, and change no packed weight."""

from dataclasses import replace

import pytest

from autopeft.regime import Regime
from workers.backbones import Residents
from workers.inside import Inside

pytest.importorskip("bitsandbytes", reason="bitsandbytes is missing: pip install 'autopeft[bitsandbytes]'")


@pytest.fixture
def quantised(study):
    return replace(study, model=replace(study.model, load_in="8bit"), regime=Regime("fp32"))


def test_a_measurement_names_what_its_weights_were_packed_to(make_order, study, quantised, tmp_path):
    worker = Inside("cpu", tmp_path)
    for asked, bits in ((study, "none"), (quantised, "8bit"), (quantised, "8bit")):
        measurement, environment = worker.measure(make_order(asked), lambda steps: None)
        assert environment["quantisation"] == bits
        assert measurement.values["trainable_parameters"] == 2 * 2 * 2 * 32
    packed = worker.measure(make_order(quantised), lambda steps: None)[0].values["peak_memory"]
    assert packed < worker.measure(make_order(study), lambda steps: None)[0].values["peak_memory"]


def test_a_resident_is_loaded_anew_for_another_quantisation_and_its_states_are_kept_apart(study, quantised):
    import torch

    residents = Residents(torch.device("cpu"))
    plain = residents.of(study)
    assert residents.of(study) is plain
    packed = residents.of(quantised)
    assert packed is not plain
    one, other = (resident.states.key_parts(plain.train, 1) for resident in (plain, packed))
    assert {key for key in one if one[key] != other[key]} == {"arithmetic"}


def test_a_trial_computed_anew_in_its_backward_pass_learns_the_same(make_order, study, tmp_path):
    values = []
    for regime in (Regime(), Regime(gradient_checkpointing=True)):
        asked = replace(study, regime=regime)
        measurement, _ = Inside("cpu", tmp_path / str(len(values))).measure(make_order(asked), lambda steps: None)
        values.append((measurement.curve, measurement.correct))
    assert values[0] == values[1]
