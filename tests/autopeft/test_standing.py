from autopeft.standing import scale, standing
from autopeft.study import Origin, TrialState


def test_front_and_control_are_kept_apart(make_study, make_trial):
    trials = [
        make_trial(0, 0.55, 0, origin=Origin.REFERENCE),
        make_trial(1, 0.70, 64, origin=Origin.CONTROL, label="LoRA r=1"),
        make_trial(2, 0.80, 128),
        make_trial(3, 0.75, 256),
        make_trial(4, 0.90, 512, origin=Origin.INITIAL),
        make_trial(5, state=TrialState.FAILED),
    ]
    now = standing(make_study(), trials)
    assert [trial.number for trial in now.front] == [2, 4]
    assert [trial.number for trial in now.control] == [1]
    assert now.reference is trials[0]
    assert 0 < now.control_hypervolume < now.hypervolume < 1


def test_a_tighter_budget_leaves_fewer_members(make_study, make_trial):
    trials = [make_trial(0, 0.8, 128), make_trial(1, 0.9, 512)]
    assert [trial.number for trial in standing(make_study(), trials, 256).front] == [0]


def test_an_empty_study_has_an_empty_standing(make_study):
    now = standing(make_study(), [])
    assert (now.front, now.control, now.reference, now.hypervolume) == ((), (), None, 0.0)


def test_the_box_runs_from_the_smallest_configuration_to_the_budget(make_study):
    box = scale(make_study())
    assert (box.quality_floor, box.cost_floor, box.cost_ceiling) == (0.5, 32, 512)
