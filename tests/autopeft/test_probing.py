"""What a probe comes to, before anything trains."""

import pytest

from autopeft.errors import ConfigurationError
from autopeft.probing import ProbeRequest
from search_spaces.schedule import UpdateSchedule
from search_spaces.selection import Selection


def test_a_request_says_what_it_scores():
    assert ProbeRequest(UpdateSchedule()).kind == "importance"
    assert ProbeRequest(Selection()).kind == "selection"


def test_a_schedule_that_learns_nothing_is_no_probe():
    with pytest.raises(ConfigurationError, match="step size 0 learns no importance"):
        ProbeRequest(UpdateSchedule(step_size=0))


def test_a_probe_runs_at_least_once():
    with pytest.raises(ConfigurationError, match="repeats 0"):
        ProbeRequest(Selection(), repeats=0)
