import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.configuration import Configuration, Training, uniform
from search_spaces.errors import ConfigurationError
from search_spaces.methods.lora import Lora
from search_spaces.schedule import UpdateSchedule

schedules = st.builds(
    UpdateSchedule,
    update_fraction=st.floats(0.01, 1),
    suppressed_fraction=st.floats(0.01, 0.99),
    suppression_factor=st.floats(0, 1),
    interval=st.integers(1, 50),
    candidates=st.integers(2, 9),
    step_size=st.floats(0, 20),
)


@given(schedules)
def test_a_schedule_goes_through_json(schedule):
    assert UpdateSchedule.from_json(schedule.to_json()) == schedule


@given(schedules, st.integers(1, 40))
def test_counts_are_possible_on_every_backbone(schedule, layers):
    assert 1 <= schedule.updated_count(layers) <= layers
    assert 1 <= schedule.suppressed_count(layers) <= layers
    assert 1 <= schedule.candidate_count(layers) <= math.comb(layers, schedule.suppressed_count(layers))


@pytest.mark.parametrize(
    ("layers", "updated", "suppressed", "candidates"), [(1, 1, 1, 1), (2, 1, 1, 2), (32, 8, 16, 3)]
)
def test_shallow_backbones_get_a_layer_and_as_many_candidates_as_there_are(layers, updated, suppressed, candidates):
    schedule = UpdateSchedule()
    assert schedule.updated_count(layers) == updated
    assert schedule.suppressed_count(layers) == suppressed
    assert schedule.candidate_count(layers) == candidates


def test_where_nothing_is_learned_the_fields_of_learning_do_not_tell_schedules_apart():
    assert UpdateSchedule(0.5, 0.3, 0.1, 7, 4, step_size=0) == UpdateSchedule(0.5, step_size=0)


def test_a_configuration_keeps_its_schedule_and_its_digest_tells_of_it(tiny_backbone):
    plain = uniform(tiny_backbone, ("query",), Lora(1, 2), 1e-3)
    sparse = Configuration(plain.layers, Training(1e-3, UpdateSchedule(update_fraction=0.5)))
    assert sparse.digest != plain.digest
    assert Configuration.from_json(sparse.to_json()) == sparse
    assert "schedule" not in plain.to_json()["training"]


def test_a_schedule_that_changes_nothing_is_no_schedule(tiny_backbone):
    plain = uniform(tiny_backbone, ("query",), Lora(1, 2), 1e-3)
    same = Configuration(plain.layers, Training(1e-3, UpdateSchedule(update_fraction=1, step_size=0)))
    assert same == plain
    assert same.digest == plain.digest


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("update_fraction", 0),
        ("update_fraction", 1.1),
        ("update_fraction", "a quarter"),
        ("suppressed_fraction", 1),
        ("suppression_factor", -0.1),
        ("suppression_factor", math.nan),
        ("interval", 0),
        ("interval", 2.5),
        ("candidates", 1),
        ("step_size", -1),
        ("step_size", True),
        ("step_size", 2000),
    ],
)
def test_what_is_no_schedule_is_refused_by_name(field, value):
    with pytest.raises(ConfigurationError, match=f"update schedule, {field} .*expected"):
        UpdateSchedule(**{field: value})


@pytest.mark.parametrize("data", [{"interval": 5, "colour": 1}, 3, None])
def test_an_unknown_field_is_refused(data):
    with pytest.raises(ConfigurationError, match="it may have update_fraction"):
        UpdateSchedule.from_json(data)
