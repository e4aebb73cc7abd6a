"""Searches with rungs: who goes on, who does not, and what a kill changes."""

from contextlib import closing

import pytest

from autopeft.driver import Driver, Interrupt
from autopeft.errors import AutopeftError
from autopeft.fidelity import Fidelity
from autopeft.progress import Ending
from autopeft.rungs import promotions, require_unfinished
from autopeft.store import Store
from autopeft.store.database import Database
from autopeft.store.invariants import violations
from autopeft.study import Origin, TrialState


class TestRungs:
    """Trials of a study with a ladder pause, and the better half goes on."""

    @pytest.fixture
    def laddered(self, make_study):
        return lambda **fields: make_study(fidelity=Fidelity(8, 4, 16, (2, 4)), **fields)

    @pytest.fixture
    def climb(self, arithmetic_workers):
        def climbed(store, url, study, artifacts=None, interrupt=None, show=lambda progress: None, **engine):
            workers = arithmetic_workers(url, study.name, artifacts=artifacts, **engine)
            driver = Driver(store, study, workers, show, interrupt or Interrupt(), artifacts)
            return driver.run(), workers

        return climbed

    @pytest.mark.parametrize(("count", "proposer"), [(1, "random"), (3, "closed-form")])
    def test_half_of_each_rung_goes_on_and_the_rest_stays_paused(
        self, store, url, laddered, count, proposer, searched, climb
    ):
        study = laddered(trials=9, initial_count=4, proposer=proposer)
        store.create_study(study)
        ending, workers = climb(store, url, study, count=count)
        assert ending is Ending.TARGET
        trials = store.trials(study.name)
        finished = [sum(trial.rung > rung for trial in searched(trials)) for rung in range(3)]
        assert finished[0] == 9
        assert finished[1] >= 5
        assert finished[1] / 2 <= finished[2]
        if count == 1:  # of several, who ends when decides how many went on before better ones came
            assert finished[1] <= 7
            assert finished[2] <= 5
        assert not promotions(study, trials, more_to_come=False)
        by_cost = sorted(searched(trials), key=lambda trial: trial.values["trainable_parameters"])
        assert {by_cost[0].state, by_cost[-1].state} == {TrialState.COMPLETE}  # the cheapest, and the one of least loss
        assert {trial.state for trial in searched(trials)} <= {TrialState.PAUSED, TrialState.COMPLETE}
        assert len(workers.orders) == len(set(workers.orders))

    def test_control_and_reference_are_trained_in_full_at_once(self, store, url, laddered, climb):
        study = laddered(trials=2)
        store.create_study(study)
        _, workers = climb(store, url, study)
        fixed = [t for t in store.trials(study.name) if t.origin in (Origin.CONTROL, Origin.REFERENCE)]
        assert {(trial.state, trial.rung, len(trial.lower)) for trial in fixed} == {(TrialState.COMPLETE, 3, 0)}
        assert all((trial.number, 2) in workers.orders for trial in fixed)

    def test_only_full_runs_are_on_the_front(self, store, url, laddered, climb):
        study = laddered(trials=6)
        store.create_study(study)
        climb(store, url, study)
        complete = {t.number for t in store.trials(study.name) if t.state is TrialState.COMPLETE}
        assert {number for front in store.fronts(study.name) for number in front.trials} <= complete

    def test_checkpoints_go_with_the_end_of_the_study(self, store, url, laddered, tmp_path, climb):
        study = laddered(trials=6)
        store.create_study(study)
        climb(store, url, study, artifacts=tmp_path / "artifacts")
        left = sorted(folder.name for folder in (tmp_path / "artifacts" / study.name).iterdir())
        complete = [t for t in store.trials(study.name) if t.state is TrialState.COMPLETE]
        assert left == sorted(f"trial-{trial.number}" for trial in complete)
        for trial in complete:
            [attempt] = (tmp_path / "artifacts" / study.name / f"trial-{trial.number}").iterdir()
            assert attempt.name == f"attempt-{trial.attempt}"
        with closing(Database(url, read_only=True)) as database, database.reading() as connection:
            assert violations(connection, tmp_path / "artifacts") == []

    def test_a_finished_study_says_so_and_a_higher_target_promotes_more(self, store, url, laddered, searched, climb):
        study = laddered(trials=4)
        store.create_study(study)
        climb(store, url, study)
        trials = store.trials(study.name)
        with pytest.raises(AutopeftError, match="has reached its target of 4 trials"):
            require_unfinished(study, trials)
        before = sum(trial.state is TrialState.COMPLETE for trial in searched(trials))
        store.set_target(study.name, 12, None)
        again = store.study(study.name)
        require_unfinished(again, trials)
        assert climb(store, url, again)[0] is Ending.TARGET
        assert sum(trial.state is TrialState.COMPLETE for trial in searched(store.trials(study.name))) > before

    def test_what_is_left_of_a_killed_driver_is_finished_by_the_next(self, store, url, laddered, climb):
        """Paused, queued for a promotion and half way: all at once."""
        study = laddered(trials=5)
        store.create_study(study)
        interrupt = Interrupt()

        def stop_early(progress):
            if sum(trial.state is TrialState.PAUSED for trial in progress.trials) >= 2:
                interrupt.count = 2

        ending, _ = climb(store, url, study, interrupt=interrupt, show=stop_early)
        assert ending is Ending.INTERRUPTED
        assert climb(store, url, study)[0] is Ending.TARGET
        assert not [t for t in store.trials(study.name) if t.state in (TrialState.QUEUED, TrialState.RUNNING)]

    def test_a_small_space_is_exhausted_with_its_promotions_made(self, store, url, laddered, searched, climb):
        from search_spaces.space import ModuleGroup, SpaceDefinition

        space = SpaceDefinition("two", (ModuleGroup(("query",), (0, 1)),), ((0,), (1,)), 2.0, (1e-3, 1e-3))
        study = laddered(space=space, trials=5)
        store.create_study(study)
        assert climb(store, url, study)[0] is Ending.EXHAUSTED
        assert any(trial.state is TrialState.COMPLETE for trial in searched(store.trials(study.name)))

    def test_a_lone_worker_searches_alike_whether_quick_or_slow(self, tmp_path, laddered, climb):
        found = []
        for seconds in (0.0, 0.06):
            url = f"sqlite:///{tmp_path}/{seconds}.db"
            with Store.open(url, create=True) as store:
                study = laddered(trials=7, initial_count=3, proposer="closed-form")
                store.create_study(study)
                _, workers = climb(store, url, study, count=1, seconds=seconds)
                found.append((workers.orders, [(t.digest, t.state, t.rung) for t in store.trials(study.name)]))
        assert found[0] == found[1]

    def test_stopped_from_outside_all_that_is_paused_is_cancelled(self, store, url, laddered, climb):
        study = laddered(trials=8)
        store.create_study(study)

        def stop(progress):
            if any(trial.state is TrialState.PAUSED for trial in progress.trials):
                store.stop(study.name)

        assert climb(store, url, study, show=stop, seconds=0.02)[0] is Ending.STOPPED
        assert TrialState.PAUSED not in {trial.state for trial in store.trials(study.name)}
