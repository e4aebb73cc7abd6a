"""Why a trial is on the front or is not, on five points that can be checked by hand."""

from dataclasses import replace

import pytest

from autopeft import control
from autopeft.agreement import agreement, bands, sentences
from autopeft.reasons import Rivals, dominates, reasons
from autopeft.standing import standing
from autopeft.study import Origin, TrialState
from search_spaces.configuration import uniform
from search_spaces.methods.lora import Lora


@pytest.fixture
def told(make_study, make_trial):
    """What is said of a trial, among five of which two are on the front, with a control and the head alone."""
    study = make_study()
    points = {1: (0.70, 100), 2: (0.90, 300), 3: (0.60, 200), 4: (0.85, 400), 5: (0.65, 100)}
    trials = [make_trial(number, accuracy, cost, digest=f"d{number}") for number, (accuracy, cost) in points.items()]
    trials.append(make_trial(6, 0.80, 320, origin=Origin.CONTROL, digest="d6"))
    trials.append(make_trial(7, 0.50, 0, origin=Origin.REFERENCE, digest="d7"))
    trials.append(make_trial(8, state=TrialState.QUEUED))

    def say(number, *more):
        known = [*trials, *more]
        return " ".join(reasons(Rivals.of(study, known), known, standing(study, known).front, number))

    return say


def test_a_member_says_what_it_dominates_and_what_is_next_to_it(told):
    assert "no searched trial dominates it; it dominates 1 of 4" in told(2)
    assert "it dominates 2 of 4" in told(1)
    assert "No member has a better quality" in told(2)
    assert "Next cheaper: trial 1, -0.2000 accuracy, -200 parameters" in told(2)
    assert "Next better: trial 2, +0.2000 accuracy, +200 parameters" in told(1)


def test_a_dominated_trial_names_what_dominates_it(told):
    assert "Not on the front: dominated by trial 2, +0.0500 accuracy, -100 parameters." in told(4)


def test_control_and_head_are_told_apart(told):
    assert "Control: dominated by trial 2" in told(6)
    assert "no adapter" in told(7)


def test_what_is_not_measured_has_no_reasons(told):
    assert told(8) == ""
    assert told(99) == ""


def test_a_lucky_repeat_that_decides_is_named(told, make_trial):
    lucky = make_trial(9, 0.95, 500, digest="x")
    unlucky = make_trial(10, 0.75, 500, digest="x", replicate=1)
    text = told(9, lucky, unlucky)
    assert "Not on the front: dominated by trial 2" in text
    assert "2 repeats: 0.9500 (trial 9), 0.7500 (trial 10); their mean of 0.8500 is what counts" in text
    assert "Trial 9 alone would be on the front; the mean is dominated by trial 2." in text
    assert "One run" in told(2)


def test_every_repeat_of_a_member_is_on_the_front(told, make_trial):
    repeats = [make_trial(9, 0.98, 500, digest="x"), make_trial(10, 0.94, 500, digest="x", replicate=1)]
    for number in (9, 10):
        assert "On the front: no searched trial dominates it; it dominates 1 of 5" in told(number, *repeats)


def test_domination_needs_one_better_and_none_worse(make_study):
    study = make_study()
    assert dominates(study, (0.9, 10), (0.8, 10))
    assert not dominates(study, (0.9, 10), (0.9, 10))
    assert not dominates(study, (0.9, 20), (0.8, 10))


def plans(backbone, *ranks):
    return [uniform(backbone, ("query",), Lora(rank, 2.0), 1e-3) for rank in ranks]


def test_agreement_counts_members_and_takes_the_median_of_those_that_adapt(tiny_backbone):
    members = [*plans(tiny_backbone, 2, 8), uniform(tiny_backbone, ("value",), Lora(4, 2.0), 1e-3)]
    found = agreement(members)
    assert list(found) == ["query", "value"]
    assert (found["query"][0].share, found["query"][0].median) == (pytest.approx(2 / 3), 5)
    assert (found["value"][1].share, found["value"][1].median) == (pytest.approx(1 / 3), 4)
    assert "Adapted most often: query, in 67% of layers and members." in sentences(found, 3)
    assert sentences(found, 2) == []
    assert agreement([]) == {}


def test_bands_hold_about_as_many_each():
    assert bands([5, 1, 4, 2, 3, 6]) == ((1, 2), (3, 4), (5, 6))
    assert bands([1, 2, 3, 4]) == ((1, 2), (3, 4))
    assert bands([1, 2, 3]) == ()
    assert bands([]) == ()


def test_what_confirms_a_member_counts_for_it_no_more_than_its_luck(told, make_trial):
    again = make_trial(9, 0.80, 300, digest="d2", origin=Origin.CONFIRMATION, replicate=1)
    assert "it dominates 1 of 4" in told(2, again)
    assert "One run" in told(2, again)
    assert "Trained again with fresh seeds, which had no part in the choice: 0.8000 (trial 9)." in told(2, again)
    assert told(9, again) == "It trains trial 2 again for the verdict, and is no point of its own."


def test_a_rate_that_the_control_did_not_choose_says_so(make_study, make_trial):
    study = make_study(control_rates=3)
    trials = [
        replace(make_trial(number, score, origin=Origin.CONTROL), digest=plan.digest)
        for number, (plan, score) in enumerate(zip(control.first(study).values(), (0.6, 0.8, 0.7), strict=True))
    ]
    said = [" ".join(reasons(Rivals.of(study, trials), trials, [], number)) for number in range(3)]
    assert ["its own was not chosen" in one for one in said] == [True, False, True]
