"""The front after the final training: who stays, who falls off, and whether it beats the control on the test split."""

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from autopeft.final import FinalRun
from autopeft.final_front import Finished, final_document, final_front, final_lines
from autopeft.html_report.final import final_page
from autopeft.promise import Figure, Promise
from autopeft.standing import standing
from autopeft.study import PARAMETERS, Origin

ROWS = 400


def marks(share):
    right = round(share * ROWS)
    return tuple([1] * right + [0] * (ROWS - right))


@pytest.fixture
def searched(make_trial):
    """Three members of the front, dearer and better, and two of the control."""
    ours = [make_trial(1, 0.70, 64), make_trial(2, 0.80, 128), make_trial(3, 0.90, 256)]
    theirs = [make_trial(n, q, c, origin=Origin.CONTROL, label="LoRA") for n, q, c in ((4, 0.65, 64), (5, 0.75, 256))]
    return [*ours, *theirs]


def finished(trials, scores, tested=True):
    """Every trial with three seeds around its score on the test split, and its promise."""
    found = []
    for trial in trials:
        runs = []
        offsets = [-0.01, 0.0, 0.01]
        for seed, off in zip(
            (1000, 1001, 1002), offsets[trial.number % 3 :] + offsets[: trial.number % 3], strict=True
        ):
            score = scores[trial.number] + off
            test = (score, 0.4, marks(score)) if tested else (None, None, ())
            values = dict(trial.values) | {"accuracy": score}
            runs.append(FinalRun(seed, values, (), marks(score), "0", {}, *test))
        promise = Promise((Figure("accuracy", trial.values["accuracy"], 0.02, 1),), True, 2)
        found.append(Finished(trial, tuple(runs), promise, True))
    return found


@pytest.fixture
def make_front(make_study, searched):
    def make(scores, tested=True):
        study = make_study()
        return final_front(study, standing(study, searched), finished(searched, scores, tested))

    return make


def test_members_that_hold_stay_on_the_front(make_front):
    front = make_front({1: 0.70, 2: 0.80, 3: 0.90, 4: 0.60, 5: 0.62})
    assert [one.number for one in front.standing.front] == [1, 2, 3]
    assert front.fallen == {}
    found = final_document(front)
    assert (found["front"], found["fell_off"], found["split"]) == ([1, 2, 3], [], "test")
    assert found["verdict"]["answer"] == "better"
    assert [row["trial"] for row in found["members"]] == [1, 2, 3, 4, 5]
    assert found["members"][0]["promise"]["answer"] == "within the interval"
    text = "\n".join(final_lines(front))
    assert "every member of the search's front stays on it" in text
    assert "promises: 4 within the interval, 1 below the interval" in text


def test_who_is_beaten_by_a_cheaper_member_falls_off_and_by_whom_is_said(make_front):
    front = make_front({1: 0.85, 2: 0.80, 3: 0.90, 4: 0.60, 5: 0.62})
    assert front.fallen == {2: 1}
    text = "\n".join(final_lines(front))
    assert "trial 2 falls off the front: trial 1 is as good or better at no more cost" in text
    assert front.compared(1).answer.value == "above the interval"


@pytest.mark.parametrize(("control", "answer"), [(0.60, "better"), (0.895, "not distinguishable"), (0.98, "worse")])
def test_the_verdict_is_on_the_test_split(make_front, control, answer):
    front = make_front({1: 0.895, 2: 0.9, 3: 0.9, 4: control, 5: control})
    assert front.confirmed.verdict.answer.value == answer
    assert f"verdict: {answer}" in "\n".join(final_lines(front))


def test_without_a_test_split_validation_stands_for_it_and_that_is_said(make_front):
    front = make_front({1: 0.70, 2: 0.80, 3: 0.90, 4: 0.60, 5: 0.62}, tested=False)
    assert front.split == "validation"
    assert "the task has no test split" in "\n".join(final_lines(front))


def test_the_page_loads_nothing_and_shows_every_member(make_front):
    page = final_page(make_front({1: 0.85, 2: 0.80, 3: 0.90, 4: 0.60, 5: 0.62}))

    class Seen(HTMLParser):
        def __init__(self):
            super().__init__()
            self.tags, self.ids, self.loads = set(), set(), []

        def handle_starttag(self, tag, attrs):
            named = dict(attrs)
            self.tags.add(tag)
            self.ids.add(named.get("id"))
            self.loads += [value for name, value in attrs if name in ("src", "href") and not value.startswith("#")]

    seen = Seen()
    seen.feed(page)
    assert "script" not in seen.tags
    assert seen.loads == []
    assert {f"trial-{number}" for number in range(1, 6)} <= seen.ids
    assert "falls off: trial 1" in page
    assert page.count("<svg") >= 1
    assert PARAMETERS.replace("_", " ") in page


def test_tasks_of_the_harness_stand_beside_every_member_that_has_them(make_study, searched):
    study, scores = make_study(), {1: 0.70, 2: 0.80, 3: 0.90, 4: 0.60, 5: 0.62}
    told = [replace(one, harness={"arc_easy": {"acc": 0.5, "acc_stderr": 0.1}}) for one in finished(searched, scores)]
    front = final_front(study, standing(study, searched), told)
    assert "lm-eval arc_easy: trial 3 acc 0.5000" in list(final_lines(front))
    assert "lm-eval arc_easy: trial 3 acc 0.5000" in final_page(front)
    assert {row["lm_eval"]["arc_easy"]["acc"] for row in final_document(front)["members"]} == {0.5}
    assert "lm_eval" not in final_document(final_front(study, standing(study, searched), finished(searched, scores)))
