"""The loop against a real record and workers that measure nothing: an arithmetic score, reported at once."""

import socket
import subprocess
import time

import numpy as np
import pytest

from autopeft.api import reopen
from autopeft.driver import Interrupt
from autopeft.errors import AutopeftError, EvaluationError, LeaseLostError, StoreError
from autopeft.objectives import parse
from autopeft.progress import Ending
from autopeft.rungs import require_unfinished
from autopeft.scales import with_boxes
from autopeft.standing import standing
from autopeft.store import Store
from autopeft.study import Origin, Proposal, TrialState
from search_spaces.cost import stored_bytes, trainable_parameters


@pytest.mark.parametrize("proposer", ["random", "closed-form"])
def test_a_search_ends_with_all_trials_the_control_and_the_reference(store, url, make_study, proposer, drive, searched):
    study = make_study(proposer=proposer, trials=6, initial_count=3)
    store.create_study(study)
    assert drive(store, url, study) is Ending.TARGET
    trials = store.trials(study.name)
    assert len(searched(trials)) == 6
    assert [trial.label for trial in trials if trial.origin is Origin.REFERENCE] == ["head only"]
    assert len([trial for trial in trials if trial.origin is Origin.CONTROL]) == 6
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert len({(trial.digest, trial.replicate) for trial in trials}) == len(trials)
    assert all(trial.values["trainable_parameters"] <= 512 for trial in trials)
    history = store.fronts(study.name)
    assert 0 < history[0].hypervolume <= history[-1].hypervolume <= 1


def test_what_is_recorded_is_what_was_proposed(store, url, make_study, drive, searched):
    study = make_study(trials=5)
    store.create_study(study)
    drive(store, url, study)
    for trial in store.trials(study.name):
        assert trial.configuration.digest == trial.digest
        assert trial.values["trainable_parameters"] == trainable_parameters(trial.configuration, study.backbone)
    for trial in searched(store.trials(study.name)):
        study.search_space.encode(trial.configuration)


def test_a_failed_trial_is_data_and_the_search_goes_on(store, url, make_study, drive, searched):
    study = make_study(trials=4)
    store.create_study(study)
    assert drive(store, url, study, fail={8}) is Ending.TARGET
    failed = store.trial(study.name, 8)
    assert failed.state is TrialState.FAILED
    assert "planted failure" in failed.error
    assert len(searched(store.trials(study.name))) == 4


def test_an_interrupted_search_is_resumed_to_its_target(store, url, make_study, drive, searched):
    study = make_study(trials=8)
    store.create_study(study)
    interrupt = Interrupt()

    def stop_soon(progress):
        if sum(trial.state is TrialState.COMPLETE for trial in progress.trials) >= 3:
            interrupt.request()

    assert drive(store, url, study, interrupt, stop_soon, seconds=0.05) is Ending.INTERRUPTED
    assert len(searched(store.trials(study.name))) < 8
    require_unfinished(study, store.trials(study.name))
    assert drive(store, url, study) is Ending.TARGET
    trials = store.trials(study.name)
    assert len(searched(trials)) == 8
    assert len({(trial.digest, trial.replicate) for trial in trials}) == len(trials)
    with pytest.raises(AutopeftError, match="reached its target"):
        require_unfinished(study, trials)


def test_a_refused_target_leaves_the_one_that_is_stored(store, url, make_study, drive):
    study = make_study(trials=4)
    store.create_study(study)
    drive(store, url, study)
    with pytest.raises(AutopeftError, match=r"reached its target of 1 trials; .* --trials 8 goes on"):
        reopen(store, study.name, 1, None)
    assert store.study(study.name).trials == 4


def test_a_time_limit_ends_the_search(store, url, make_study, drive):
    study = make_study(trials=1000, hours=1.5 / 3600)
    store.create_study(study)
    assert drive(store, url, study, seconds=0.1) is Ending.HOURS
    assert store.counts(study.name)[TrialState.RUNNING] == 0
    require_unfinished(study, store.trials(study.name))


def test_two_drivers_cannot_run_one_study(store, url, make_study, drive):
    study = make_study()
    store.create_study(study)
    store.acquire_driver(study.name, "another host")
    with pytest.raises(StoreError, match="another host"):
        drive(store, url, study)


def test_a_dead_driver_of_this_host_is_waited_out(store, url, make_study, monkeypatch, drive):
    study = make_study(trials=2)
    store.create_study(study)
    gone = subprocess.Popen(["true"])
    gone.wait()
    store.acquire_driver(study.name, f"{socket.gethostname()}:{gone.pid}", lease_seconds=1.0)
    assert drive(store, url, study) is Ending.TARGET


def test_a_driver_that_lost_its_lease_enqueues_nothing(store, url, make_study):
    study = make_study()
    store.create_study(study)
    epoch = store.acquire_driver(study.name, "first", lease_seconds=0.01)
    time.sleep(0.05)
    store.acquire_driver(study.name, "second")
    with pytest.raises(LeaseLostError):
        store.renew_driver(study.name, epoch)
    with pytest.raises(LeaseLostError):
        store.enqueue(study.name, epoch, [])


def test_a_small_space_is_searched_until_it_is_exhausted(store, url, make_study, tiny_backbone, drive, searched):
    from search_spaces.space import ModuleGroup, SpaceDefinition

    space = SpaceDefinition("two", (ModuleGroup(("query",), (0, 1)),), ((0,), (1,)), 2.0, (1e-3, 1e-3))
    study = make_study(space=space, trials=50)
    store.create_study(study)
    assert drive(store, url, study) is Ending.EXHAUSTED
    assert len(searched(store.trials(study.name))) == 3


def test_a_search_whose_first_trials_all_fail_alike_ends_with_that_message(store, url, make_study, drive, searched):
    study = make_study(trials=50)
    store.create_study(study)
    with pytest.raises(EvaluationError, match=r"failed alike: planted failure"):
        drive(store, url, study, fail=set(range(100)))
    assert len(searched(store.trials(study.name))) < 50


def test_a_study_that_is_stopped_from_outside_ends_the_search(store, url, make_study, drive, searched):
    study = make_study(trials=1000)
    store.create_study(study)

    def stop_soon(progress):
        if len(searched(progress.trials)) >= 3:
            store.stop(study.name)

    assert drive(store, url, study, show=stop_soon, seconds=0.02) is Ending.STOPPED
    assert len(searched(store.trials(study.name))) < 1000


def test_what_was_cancelled_is_made_up_for(store, url, make_study, drive):
    study = make_study(proposer="random", trials=6, initial_count=2)
    store.create_study(study)
    epoch = store.acquire_driver(study.name, "a user")
    plans = [study.search_space.sample(np.random.default_rng(seed), study.budget.parameters) for seed in range(2)]
    store.enqueue(study.name, epoch, [Proposal(plan, Origin.INITIAL) for plan in plans])
    store.release_driver(study.name, epoch)
    store.cancel(study.name, 0)
    assert drive(store, url, study) is Ending.TARGET
    counts = store.counts(study.name)
    assert counts[TrialState.CANCELLED] == 1
    states = [trial.state for trial in store.trials(study.name) if trial.origin.is_searched]
    assert states.count(TrialState.COMPLETE) == 6


def test_a_lone_worker_searches_alike_whether_quick_or_slow(tmp_path, make_study, drive):
    found = []
    for name, seconds in (("quick", 0.0), ("slow", 0.15)):
        url = f"sqlite:///{tmp_path}/{name}.db"
        study = make_study(proposer="closed-form", trials=10, initial_count=3, control_rates=3)
        with Store.open(url, create=True) as store:
            store.create_study(study)
            drive(store, url, study, count=1, seconds=seconds)
            found.append([trial.digest for trial in store.trials(study.name)])
    assert found[0] == found[1]


@pytest.mark.parametrize("proposer", ["closed-form", "nsga2", "evolution"])
def test_further_objectives_and_limits_reach_the_proposer_and_the_front(
    store, url, make_study, proposer, drive, searched
):
    objectives = parse("accuracy,forward_flops,train_seconds", "accuracy", {})
    limits = {"stored_bytes": 1000.0, "train_seconds": 60.0}
    study = with_boxes(make_study(objectives=objectives, limits=limits, proposer=proposer, trials=8, initial_count=3))
    store.create_study(study)
    assert drive(store, url, study) is Ending.TARGET
    trials = store.trials(study.name)
    assert len(searched(trials)) == 8
    adapted = [trial for trial in trials if trial.origin is not Origin.REFERENCE]
    assert max(stored_bytes(trial.configuration, study.backbone) for trial in adapted) <= 1000
    # of the six that fit the budget, r=1 and 2 on query and value and r=1 on all linear store at most 1000 bytes
    assert len([trial for trial in trials if trial.origin is Origin.CONTROL]) == 3
    now = standing(store.study(study.name), trials)
    history = store.fronts(study.name)
    assert list(history[-1].trials) == [trial.number for trial in now.front]
    assert history[-1].hypervolume == now.hypervolume > 0
