"""``pick`` and ``compare`` on a record made by hand; ``show --svg``."""

import json
import xml.etree.ElementTree as ET

import pytest

from autopeft.errors import NotFoundError
from autopeft.store import Store
from autopeft.study import PARAMETERS, Measurement, Origin, Proposal
from search_spaces.configuration import uniform
from search_spaces.methods.lora import Lora
from search_spaces.methods.prefix import Prefix

ROWS = 200


@pytest.fixture
def record(tmp_path, make_study, tiny_backbone):
    """Four plans, from .70 to .90 of 200 rows; the two best differ in two rows; the first has a repeat."""
    url = f"sqlite:///{tmp_path}/autopeft.db"
    study = make_study()
    plans = [uniform(tiny_backbone, ("query",), Lora(rank, 2.0), 1e-3) for rank in (1, 2, 4, 8)]
    proposals = [Proposal(plan, Origin.MODEL) for plan in plans] + [Proposal(plans[0], Origin.MODEL, replicate=1)]
    with Store.open(url, create=True) as store:
        store.create_study(study)
        store.enqueue(study.name, store.acquire_driver(study.name, "test"), proposals)
        for right, cost in ((140, 32), (160, 64), (178, 128), (180, 256), (144, 32)):
            order = store.lease("w", study.name)
            marks = tuple([1] * right + [0] * (ROWS - right))
            values = {"accuracy": right / ROWS, PARAMETERS: cost, "loss": 0.3, "train_seconds": 1.5}
            values["evaluate_seconds"] = 0.5
            store.report(order.trial_id, order.attempt, Measurement(0, values, correct=marks))
    return url


def test_pick_names_the_best_why_and_its_ties(autopeft, record):
    code, out, err = autopeft("pick")
    assert (code, err) == (0, "")
    assert out.startswith("trial 3: accuracy 0.9000 ± 0.0")
    assert "trial 2: accuracy 0.8900" in out
    assert "trial 1" not in out
    assert out.endswith(
        "next:\n  autopeft show 3 --layers --study tiny-1\n  autopeft export 3 --to peft -o runs/3 --study tiny-1\n"
    )


def test_what_to_type_next_names_the_record_that_was_asked(autopeft, record, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    typed = autopeft("pick", "--db", record)[1].partition("next:\n")[2].splitlines()
    assert all(line.endswith(f" --study tiny-1 --db {record}") for line in typed)
    assert autopeft(*typed[0].split()[1:])[0] == 0


def test_pick_as_json_has_every_member_with_its_error(autopeft, record):
    code, out, _ = autopeft("pick", "--rule", "cheapest-within", "--within", "0.05", "--json")
    data = json.loads(out)
    assert (code, data["schema"], data["trial"], data["ties"]) == (0, "autopeft.pick/1", 2, [3])
    best = data["members"][-1]
    assert (best["trial"], best["values"]["accuracy"], best["repeats"]) == (3, 0.9, 1)
    assert best["error"] > 0
    repeated = data["members"][0]
    assert repeated["values"]["accuracy"] == pytest.approx((0.70 + 0.72) / 2)
    assert repeated["repeats"] == 2


def test_pick_within_a_tighter_budget(autopeft, record):
    assert json.loads(autopeft("pick", "--budget", "70", "--json")[1])["trial"] == 1
    code, _, err = autopeft("pick", "--budget", "10")
    assert (code, "is empty" in err) == (5, True)


def test_pick_from_what_a_target_holds_whole(autopeft, record, tiny_backbone):
    prefix = uniform(tiny_backbone, ("attention",), Prefix(2), 1e-3)
    with Store.open(record) as store:
        store.enqueue("tiny-1", store.acquire_driver("tiny-1", "test"), [Proposal(prefix, Origin.MODEL)])
        order = store.lease("w", "tiny-1")
        values = {"accuracy": 0.95, PARAMETERS: 16, "loss": 0.3, "train_seconds": 1.5, "evaluate_seconds": 0.5}
        store.report(order.trial_id, order.attempt, Measurement(0, values))
    assert json.loads(autopeft("pick", "--json")[1])["trial"] == 5
    data = json.loads(autopeft("pick", "--to", "peft", "--json")[1])
    assert (data["trial"], data["target"], len(data["members"])) == (3, "peft", 4)  # which the prefix dominates
    assert "autopeft export 3 --to vllm" in autopeft("pick", "--to", "vllm")[1]
    code, _, err = autopeft("pick", "--to", "axolotl")  # a classifier's head goes to no trainer
    assert (code, "goes whole to axolotl" in err) == (5, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--to", "pfet"), "expected one of peft, vllm"),
        (("--rule", "nicest"), "expected one of best, knee, cheapest-within"),
        (("--within", "0.1"), "for cheapest-within only"),
        (("--rule", "cheapest-within", "--within", "-1"), "expected a number ≥ 0"),
    ],
)
def test_pick_refuses_what_it_does_not_know(autopeft, record, arguments, said):
    code, out, err = autopeft("pick", *arguments)
    assert (code, out) == (2, "")
    assert said in err


def test_compare_says_what_is_told_apart_and_where_the_plans_differ(autopeft, record):
    code, out, err = autopeft("compare", "1", "3")
    assert (code, err) == (0, "")
    assert "0.8000 ± " in out
    assert ", differs)" in next(line for line in out.splitlines() if line.startswith("accuracy"))
    assert "query  0: 2→8   1: 2→8" in out
    assert ", tie)" in autopeft("compare", "3", "2")[1]


def test_compare_writes_values_as_show_does(autopeft, record, tiny_backbone):
    plan = uniform(tiny_backbone, ("query",), Lora(3, 2.0), 1e-3)
    with Store.open(record) as store:
        store.enqueue("tiny-1", store.acquire_driver("tiny-1", "test"), [Proposal(plan, Origin.MODEL)])
        order = store.lease("w", "tiny-1")
        values = {"accuracy": 0.9, PARAMETERS: 96, "train_seconds": 1.5, "evaluate_seconds": 0.021}
        costs = {"peak_memory": 412e6, "stored_bytes": 46_080, "forward_flops": 1.5e6}
        store.report(order.trial_id, order.attempt, Measurement(0, values | costs))
    out = autopeft("compare", "1", "5")[1]
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    shown = autopeft("show", "5")[1]
    for name, text in (("evaluate_seconds", "21 ms"), ("peak_memory", "412 MB"), ("stored_bytes", "46.08 kB")):
        assert text in rows[name]
        assert text in shown
    assert "1.5 MFLOP" in rows["forward_flops"]
    assert "21 ms (-0.48 s, differs)" in rows["evaluate_seconds"]


def test_compare_as_json_is_one_document(autopeft, record):
    data = json.loads(autopeft("compare", "0", "1", "2", "--json")[1])
    assert (data["schema"], data["trials"]) == ("autopeft.comparison/1", [0, 1, 2])
    accuracy = data["values"][0]
    assert accuracy["name"] == "accuracy"
    assert [one["tie"] for one in accuracy["differences"]] == [True, False, False]
    assert data["cells"][0] == {"site": "query", "layer": 0, "sizes": [1, 2, 4]}


@pytest.mark.parametrize("numbers", [("1",), ("1", "1"), ("0", "1", "2", "3", "4")])
def test_compare_takes_two_to_four_different_trials(autopeft, record, numbers):
    code, _, err = autopeft("compare", *numbers)
    assert (code, "two to four different" in err) == (2, True)


def test_a_trial_that_is_not_there_is_named(autopeft, record):
    code, _, err = autopeft("compare", "1", "99")
    assert (code, "no trial 99" in err) == (3, True)


def test_show_prints_the_sheet_as_svg(autopeft, record):
    code, out, _ = autopeft("show", "2", "--layers", "--svg")
    assert code == 0
    root = ET.fromstring(out)
    assert root.tag.endswith("svg")
    assert "trial 2" in root[0].text
    assert autopeft("show", "2", "--svg")[0] == 2
    assert autopeft("show", "2", "--layers", "--svg", "--json")[0] == 2


@pytest.mark.parametrize(("command", "verb"), [("confirm", "confirm"), ("references", "compare_with")])
def test_more_of_a_study_is_written_where_it_is_told(autopeft, record, tmp_path, monkeypatch, command, verb):
    asked = []

    def noted(*arguments):
        asked.append(arguments[-1].artifacts)
        raise NotFoundError("far enough")

    monkeypatch.setattr(f"autopeft.running.{verb}", noted)
    assert autopeft(command, "-d", record, "--artifacts", tmp_path / "shared")[0] == 3
    assert asked == [str(tmp_path / "shared")]


def test_a_trial_that_was_never_measured_is_trained_and_that_is_said(
    autopeft, record, tiny_backbone, tmp_path, monkeypatch
):
    def far_enough(*_arguments):
        raise NotFoundError("far enough")

    monkeypatch.setattr("autopeft.finishing.run", far_enough)
    plan = uniform(tiny_backbone, ("query",), Lora(3, 2.0), 1e-3)
    with Store.open(record) as store:
        store.enqueue("tiny-1", store.acquire_driver("tiny-1", "test"), [Proposal(plan, Origin.MODEL)])
    said = "has no full run of this trial"
    assert said in autopeft("train", 5, "-d", record, "-o", tmp_path / "five")[2]
    assert said not in autopeft("train", 3, "-d", record, "-o", tmp_path / "three")[2]


def test_finalize_says_nothing_of_training_where_there_is_nothing_to_train(autopeft, make_study, tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/empty.db", create=True) as store:
        store.create_study(make_study())
    code, out, err = autopeft("finalize", "-d", tmp_path / "empty.db")
    assert (code, out) == (5, "")
    assert err.startswith("error: the front of tiny-1 is empty: ")
    assert not (tmp_path / "runs").exists()


def test_a_tracker_that_is_missing_is_said_before_anything_is_written(autopeft, record, tmp_path, monkeypatch):
    monkeypatch.setattr("autopeft.trackers.find_spec", lambda _name: None)
    code, out, err = autopeft("train", 1, "-d", record, "--tracker", "wandb", "-o", tmp_path / "run")
    assert (code, out) == (2, "")
    assert err == "error: tracker wandb: the package wandb is not installed; pip install 'autopeft[wandb]'\n"
    assert not (tmp_path / "run").exists()
