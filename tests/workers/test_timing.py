from search_spaces.cost import trainable_parameters
from workers.timing import middle_configuration, time_step


def test_a_step_and_a_scored_row_cost_time(study):
    measured = time_step({"study": study.to_json(), "device": "cpu"})
    assert measured["device"] == "cpu"
    assert all(measured[name] > 0 for name in ("step_seconds", "evaluate_seconds_per_row", "load_seconds"))


def test_the_middle_configuration_takes_at_most_half_the_budget(study):
    assert trainable_parameters(middle_configuration(study), study.backbone) == 512
