"""Fresh seeds: which are asked for, what they say, and the sentence that comes of it."""

import json
from dataclasses import replace

import pytest

from autopeft.comparing import compare
from autopeft.confirming import UNCONFIRMED, confirmed, missing, numbers
from autopeft.report import front_document, front_text
from autopeft.standing import standing
from autopeft.study import Origin
from autopeft.verdict import Answer

ROWS = 1_000


def marks_of(trials):
    """Correctness of 1,000 rows, the first ones of which are right."""
    right = {trial.number: round(trial.values["accuracy"] * ROWS) for trial in trials}
    return {number: tuple(int(row < count) for row in range(ROWS)) for number, count in right.items()}


@pytest.fixture
def searched(make_trial):
    """A control of two, and a front of two whose luck in the search was great."""
    trials = [
        make_trial(0, 0.60, 64, origin=Origin.CONTROL, label="LoRA r=1"),
        make_trial(1, 0.65, 128, origin=Origin.CONTROL, label="LoRA r=2"),
        make_trial(2, 0.80, 64),
        make_trial(3, 0.95, 256, origin=Origin.INITIAL),
        make_trial(4, 0.70, 300),
    ]
    return [replace(trial, digest=f"digest {trial.number}") for trial in trials]


def again(make_trial, trial, number, accuracy, replicate=1):
    cost = trial.values["trainable_parameters"]
    copy = make_trial(number, accuracy, cost, origin=Origin.CONFIRMATION)
    return replace(copy, digest=trial.digest, configuration=trial.configuration, replicate=replicate)


def test_front_and_control_are_asked_for_once_each_seed(make_study, make_trial, searched):
    study = make_study(confirmations=2)
    proposals = missing(study, searched, standing(study, searched))
    assert [(one.label, one.replicate) for one in proposals] == [
        (f"trial {number} again", replicate) for replicate in (1, 2) for number in (2, 3, 0, 1)
    ]
    assert {one.origin for one in proposals} == {Origin.CONFIRMATION}
    some = [*searched, again(make_trial, searched[3], 5, 0.9)]
    assert len(missing(study, some, standing(study, some))) == 7
    assert missing(make_study(), searched, standing(study, searched)) == []


def test_what_chose_a_member_does_not_count_for_it(make_study, make_trial, searched):
    study = make_study()
    fresh = [(0, 0.61), (1, 0.66), (2, 0.62), (3, 0.70)]
    trials = searched + [again(make_trial, searched[n], 5 + n, value) for n, value in fresh]
    now = standing(study, trials)
    found = confirmed(study, trials, now, marks_of(trials))
    assert numbers(trials) == [0, 1, 5, 6, 7, 8]
    assert [one.quality.mean for one in found.front] == [0.62, 0.70]
    assert [one.quality.mean for one in found.control] == [0.61, 0.66]
    assert [one.quality.repeats for one in found.control] == [1, 1]
    assert found.memberships[2] == 1.0
    assert found.memberships[3] > 0.9
    text = front_text(study, now, found)
    assert "0.6200" in text
    assert "0.8000" not in text
    assert ", by the runs that chose them\n" in text
    assert "verdict: " in text


def test_the_verdict_is_said_in_one_sentence_and_in_the_document(make_study, make_trial, searched):
    study = make_study()
    for values, answer in (
        ([0.61, 0.66, 0.80, 0.95], Answer.BETTER),
        ([0.61, 0.66, 0.60, 0.67], Answer.SAME),
        ([0.85, 0.95, 0.55, 0.56], Answer.WORSE),
    ):
        trials = searched + [again(make_trial, searched[n], 5 + n, value) for n, value in enumerate(values)]
        trials[0] = replace(trials[0], values={**trials[0].values, "accuracy": values[0] - 0.02})
        trials[1] = replace(trials[1], values={**trials[1].values, "accuracy": values[1] + 0.02})
        now = standing(study, trials)
        found = confirmed(study, trials, now, marks_of(trials))
        text = front_text(study, now, found)
        assert f"verdict: {answer.value}. The front's hypervolume is " in text
        assert ("you did not need a search here: plain LoRA" in text) is (answer is Answer.WORSE)
        assert ("nothing here shows that a search was needed" in text) is (answer is Answer.SAME)
        document = json.loads(json.dumps(front_document(study, now, found)))
        assert document["verdict"]["answer"] == answer.value
        assert document["verdict"]["hypervolume"]["low"] <= document["verdict"]["hypervolume"]["high"]
        assert [one["trial"] for one in document["confirmed"]["front"]] == [one.number for one in found.front]


def test_only_a_control_without_a_choice_of_rates_is_said_to_lack_one(make_study, make_trial, searched):
    for rates, said in ((1, True), (3, False)):
        study = make_study(control_rates=rates)
        fresh = enumerate([0.61, 0.66, 0.80, 0.95])
        trials = searched + [again(make_trial, searched[n], 5 + n, value) for n, value in fresh]
        now = standing(study, trials)
        text = front_text(study, now, confirmed(study, trials, now, marks_of(trials)))
        assert ("the control had 0.001 alone" in text) is said


def test_without_fresh_seeds_there_is_no_verdict_but_a_way_to_one(make_study, searched):
    study = make_study()
    now = standing(study, searched)
    found = confirmed(study, searched, now, {})
    assert found == UNCONFIRMED
    text = front_text(study, now, found)
    assert "verdict: none yet. The values above are also what chose the front, so they flatter it" in text
    assert f"autopeft confirm {study.name}" in text
    assert front_document(study, now)["verdict"] is None


def test_beside_others_a_fresh_run_stands_for_itself_and_its_trial_for_its_own(make_study, make_trial, searched):
    trials = [*searched, again(make_trial, searched[3], 5, 0.70)]
    lines = compare(make_study(), [trials[3], trials[5]], trials, marks_of(trials))
    assert [one.mean for one in lines[0].estimates] == [0.95, 0.70]


def test_references_stand_apart_from_front_control_and_verdict(make_study, make_trial, searched):
    study = make_study()
    fresh = [(0, 0.61), (1, 0.66), (2, 0.62), (3, 0.70)]
    trials = searched + [again(make_trial, searched[n], 5 + n, value) for n, value in fresh]
    plain = confirmed(study, trials, standing(study, trials), marks_of(trials))
    trials.append(make_trial(20, 0.50, 0, origin=Origin.REFERENCE, label="head only"))
    trials.append(make_trial(21, 0.99, 100, origin=Origin.REFERENCE, label="prefix 8"))
    trials.append(make_trial(22, 0.97, 10**6, origin=Origin.REFERENCE, label="full fine-tuning"))
    now = standing(study, trials)
    assert [one.label for one in now.beside] == ["prefix 8", "full fine-tuning"]
    found = confirmed(study, trials, now, marks_of(trials))
    assert found.verdict == plain.verdict and found.memberships == plain.memberships
    assert [one.number for one in found.references] == [21, 22]
    document = json.loads(json.dumps(front_document(study, now, found)))
    assert [(one["trial"], one["label"]) for one in document["references"]] == [
        (21, "prefix 8"),
        (22, "full fine-tuning"),
    ]
    assert document["head_only"]["trial"] == 20
    assert 21 not in {one["trial"] for one in (*document["members"], *document["control"])}
    text = front_text(study, now, found)
    section = text[text.index("references (in neither") :]
    assert "0.9900" in section and "prefix 8" in section and "full fine-tuning" in section
    assert "(chosen)" not in section and "head only: accuracy 0.5000" in section
