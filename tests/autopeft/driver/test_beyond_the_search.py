"""Repeats, fresh seeds and references, and what they cost of the device time."""

import pytest

from autopeft.fidelity import Fidelity
from autopeft.progress import Ending
from autopeft.standing import standing
from autopeft.store import Store
from autopeft.study import Origin, TrialState


def test_repeats_are_trials_of_their_own_and_one_member_of_the_front(store, url, make_study, drive, searched):
    from search_spaces.space import ModuleGroup, SpaceDefinition

    # three configurations, each to be measured three times at most: then nothing is left to ask
    space = SpaceDefinition("two", (ModuleGroup(("query",), (0, 1)),), ((0,), (1,)), 2.0, (1e-3, 1e-3))
    study = make_study(space=space, trials=50, repeats=3, proposer="closed-form", initial_count=2)
    store.create_study(study)
    assert drive(store, url, study) is Ending.EXHAUSTED
    found = searched(store.trials(study.name))
    by_digest = {trial.digest: [] for trial in found}
    for trial in found:
        by_digest[trial.digest].append(trial.replicate)
    assert len(by_digest) == 3
    assert all(replicates == list(range(len(replicates))) for replicates in by_digest.values())
    assert 3 < len(found) <= 9
    now = standing(study, store.trials(study.name))
    assert len(now.front) == len({trial.digest for trial in now.front})
    repeated = {trial.number: len(by_digest[trial.digest]) for trial in found if trial.replicate == 0}
    assert now.repeats == {number: count for number, count in repeated.items() if count > 1} != {}


def test_the_front_and_the_control_are_trained_again_with_fresh_seeds(store, url, make_study, drive):
    study = make_study(
        proposer="random", trials=5, initial_count=5, confirmations=2, fidelity=Fidelity(80, 8, 32, (20, 40))
    )
    store.create_study(study)
    assert drive(store, url, study) is Ending.TARGET
    trials = store.trials(study.name)
    again = [trial for trial in trials if trial.origin is Origin.CONFIRMATION]
    now = standing(study, trials)
    control = [trial for trial in trials if trial.origin is Origin.CONTROL]
    assert sorted((one.digest, one.replicate) for one in again) == sorted(
        (one.digest, replicate) for one in (*now.front, *control) for replicate in (1, 2)
    )
    assert all(one.state is TrialState.COMPLETE and one.rung == study.fidelity.top + 1 for one in again)
    assert not {one.number for one in again} & {one.number for one in (*now.front, *now.control)}
    assert drive(store, url, study) is Ending.TARGET
    assert len(store.trials(study.name)) == len(trials)


def test_references_are_trained_when_the_search_has_ended_and_change_nothing_of_it(
    store, url, make_study, drive, searched
):
    plain = make_study(name="plain", trials=4, initial_count=2, confirmations=1)
    asked = make_study(name="asked", trials=4, initial_count=2, confirmations=1, references=("serial", "full"))
    for study in (plain, asked):
        store.create_study(study)
        assert drive(store, url, study, count=1) is Ending.TARGET
    one, other = store.trials("plain"), store.trials("asked")
    assert [trial.digest for trial in searched(one)] == [trial.digest for trial in searched(other)]
    beside = [trial for trial in other if trial.origin is Origin.REFERENCE][1:]
    assert [trial.label for trial in beside][-1] == "full fine-tuning" and len(beside) > 1
    assert {trial.state for trial in beside} == {TrialState.COMPLETE}
    assert min(trial.number for trial in beside) > max(trial.number for trial in searched(other))
    assert drive(store, url, asked) is Ending.TARGET
    assert len(store.trials("asked")) == len(other)


@pytest.fixture
def even_pace(monkeypatch):
    """Every attempt took 0.2 s of device time, as the workers say, however busy this machine is."""

    def worker_seconds(self, study):
        return 0.2 * sum(trial.attempt for trial in self.trials(study) if trial.state.rests), 0.0

    monkeypatch.setattr(Store, "worker_seconds", worker_seconds)


def test_a_search_stays_within_its_device_time_and_goes_on_when_that_is_raised(
    store, url, make_study, even_pace, drive
):
    study = make_study(trials=100_000, device_hours=3.0 / 3600)
    store.create_study(study)
    assert drive(store, url, study) is Ending.DEVICE_HOURS
    trials = store.trials(study.name)
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert len(trials) in (14, 15)  # of 0.2 s in 3.0 s
    store.set_target(study.name, study.trials, None, 4.0 / 3600)
    again = store.study(study.name)
    assert again.device_hours == 4.0 / 3600
    assert drive(store, url, again) is Ending.DEVICE_HOURS
    assert len(store.trials(study.name)) in (19, 20)


def test_what_confirming_costs_is_kept_back_from_the_device_time(store, url, make_study, even_pace, drive):
    study = make_study(trials=100_000, device_hours=5.0 / 3600, confirmations=1)
    store.create_study(study)
    assert drive(store, url, study) is Ending.DEVICE_HOURS
    trials = store.trials(study.name)
    again = [trial for trial in trials if trial.origin is Origin.CONFIRMATION]
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    control = {trial.digest for trial in trials if trial.origin is Origin.CONTROL}
    due = control | {trial.digest for trial in standing(study, trials).front}  # a member may be the control's as well
    assert len(control) == 6
    assert sorted(trial.digest for trial in again) == sorted(due)
    assert 23 <= len(trials) <= 25
    assert store.worker_seconds(study.name)[0] <= 5.0


def test_device_time_that_ends_within_the_control_leaves_the_rest_for_later(store, url, make_study, drive, searched):
    study = make_study(trials=100_000, device_hours=0.3 / 3600)
    store.create_study(study)
    # two workers: what they take after their first trials holds them until the driver has seen that the time is over
    assert drive(store, url, study, seconds=0.2, until_drained={2, 3}) is Ending.DEVICE_HOURS
    states = {trial.state for trial in store.trials(study.name)}
    assert states == {TrialState.COMPLETE, TrialState.QUEUED}
    assert searched(store.trials(study.name)) == []
