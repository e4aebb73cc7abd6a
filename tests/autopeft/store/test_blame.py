import pytest

from autopeft.store import blame
from autopeft.study import TrialState


@pytest.mark.parametrize(
    ("failures", "state"), [(1, TrialState.QUEUED), (2, TrialState.FAILED), (3, TrialState.FAILED)]
)
def test_the_second_exception_is_the_last(failures, state):
    assert blame.after_failure(failures) is state


@pytest.mark.parametrize(
    ("lost", "workers", "is_quarantined"),
    [(1, 1, False), (2, 2, False), (3, 1, False), (9, 1, False), (3, 2, True), (4, 3, True)],
)
def test_only_a_trial_that_kills_several_workers_is_quarantined(lost, workers, is_quarantined):
    assert (blame.after_loss(lost, workers) is TrialState.QUARANTINED) is is_quarantined


def test_the_wait_doubles_up_to_a_minute():
    assert [blame.wait_seconds(blamed) for blamed in range(8)] == [0, 2, 4, 8, 16, 32, 60, 60]
