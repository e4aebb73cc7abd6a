"""Chosen configurations trained with several seeds, left and gone on with, scored on the test split, handed over."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from autopeft.errors import ConfigurationError, TaskError
from autopeft.export.native import load_model
from autopeft.export.provenance import provenance
from autopeft.final import FinalPlan, FinalSettings, Training
from autopeft.promise import Figure, Promise
from autopeft.study import PARAMETERS, Fidelity, Origin, Trial, TrialState
from autopeft.tasks import TaskSpec, load_task
from search_spaces.configuration import Configuration, LayerPlan, uniform
from search_spaces.configuration import Training as Choices
from search_spaces.methods.lora import Lora
from search_spaces.schedule import UpdateSchedule
from search_spaces.selection import Selection
from workers.evaluate import evaluate
from workers.final import train_in_full
from workers.journal import Journal


@pytest.fixture
def configuration(study):
    return uniform(study.backbone, ("query", "value"), Lora(2, 4.0), 2e-2)


@pytest.fixture
def make_plan(study, configuration, tmp_path):
    """A plan of one training; fields of ``FinalSettings`` by name, and ``output``, ``origin``, ``study``."""

    def make(output="final", origin=None, asked=None, plan=None, **settings):
        asked, plan = asked or study, plan or configuration
        origin = origin or provenance(asked, trial_of(plan), None, "train", None)
        training = Training(plan, origin, tmp_path / output)
        return FinalPlan(asked, FinalSettings(**{"seeds": (1000,)} | settings), (training,))

    return make


def trial_of(plan, **fields):
    values = (0, plan, plan.digest, TrialState.COMPLETE, Origin.MODEL, None, 0, 1, 1, None, {}, None)
    return replace(Trial(*values), **fields)


def trained(plan):
    train_in_full(plan)
    return json.loads((plan.trainings[0].output / "metrics.json").read_text())


def left(folder):
    """The files of every seed that do not depend on the time, to the byte."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*.safetensors"))
        if file.is_file()
    }


def untimed(metrics):
    """What of the seeds does not depend on the machine."""
    runs = [
        {**run, "values": {k: v for k, v in run["values"].items() if "seconds" not in k}} for run in metrics["seeds"]
    ]
    return [{k: v for k, v in run.items() if k != "details"} for run in runs]


def test_seeds_are_trained_scored_on_the_test_split_and_handed_over(make_plan, tmp_path, capsys):
    metrics = trained(make_plan(seeds=(1000, 1001)))
    assert {file.name for file in (tmp_path / "final").iterdir()} == {
        *("adapter.safetensors", "configuration.json", "head.safetensors", "metrics.json", "provenance.json"),
        *("README.md", "score_sheet.svg", "study.json", "seed-1000", "seed-1001"),
    }
    assert 0 <= metrics["test"]["mean"] <= 1
    assert metrics["test"]["runs"] == 2
    assert metrics["test"]["error"] > 0
    assert metrics["rows"] == {"train": 60, "validation": 30, "test": 20}
    assert metrics["costs"][PARAMETERS] == {"mean": 256, "error": None, "runs": 0}
    assert metrics["head_parameters"] == 2 * 16 + 2
    assert [len(run["test_correct"]) for run in metrics["seeds"]] == [20, 20]
    best = max(metrics["seeds"], key=lambda run: (run["values"]["accuracy"], -run["seed"]))
    assert metrics["kept_seed"] == best["seed"]
    kept = tmp_path / "final" / f"seed-{best['seed']}" / "adapter.safetensors"
    assert (tmp_path / "final" / "adapter.safetensors").read_bytes() == kept.read_bytes()
    card = (tmp_path / "final" / "README.md").read_text()
    assert "accuracy (test)" in card
    assert "scored once" in card
    assert "seed 1001: step 12 of 12" in capsys.readouterr().err
    assert load_model(tmp_path / "final").configuration is not None


def test_epochs_and_full_data_decide_the_steps(make_plan, tmp_path):
    assert trained(make_plan("half", epochs=0.5))["training"]["steps"] == 4
    whole = trained(make_plan("whole", full_data=True, seeds=(7, 8)))
    assert whole["training"]["steps"] == 18  # as many passes over 90 rows as 12 steps are over 60
    assert whole["rows"] == {"train": 90, "validation": 0, "test": 20}
    assert whole["validation"] is None
    assert (whole["kept_seed"], whole["kept_because"]) == (7, "the first seed")


def test_full_data_is_all_rows_where_the_search_had_a_share_of_them(make_plan, study):
    share = replace(
        study, task={**study.task, "train_rows": 20}, environment={}, fidelity=replace(study.fidelity, steps=2)
    )
    assert trained(make_plan("share", asked=share))["rows"]["train"] == 20
    whole = trained(make_plan("all", asked=share, full_data=True))
    assert whole["rows"] == {"train": 90, "validation": 0, "test": 20}
    assert whole["training"]["steps"] == 9  # as many passes over 90 rows as 2 steps are over 20


def test_the_run_of_the_search_comes_out_again_to_the_bit(
    make_plan, study, configuration, make_order, resident, tmp_path
):
    measurement = evaluate(make_order(study, configuration, replicate=0), resident, tmp_path)
    origin = provenance(study, trial_of(configuration), measurement, "peft", None)
    metrics = trained(make_plan(origin=origin, seeds=(0,), reads_test=False))
    assert metrics["reproduction"] == {"differences": []}
    assert metrics["test"] is None
    assert metrics["seeds"][0]["sha256"] == measurement.sha256
    assert origin["execution"]["threads"] == metrics["threads"]
    other = trained(make_plan("other", origin=origin, seeds=(1,), reads_test=False))
    assert len(other["reproduction"]["differences"]) >= 2


@pytest.mark.parametrize("schedule", [None, UpdateSchedule(update_fraction=0.5, interval=2, candidates=2)])
@pytest.mark.parametrize("precision", [None, "fp16"])
def test_a_run_that_was_killed_goes_on_to_the_same_bits(
    make_plan, configuration, tmp_path, monkeypatch, schedule, precision
):
    plan = replace(configuration, training=replace(configuration.training, schedule=schedule))
    asked = {"seeds": (3, 4), "checkpoint_steps": 5, "plan": plan, "precision": precision}
    straight = trained(make_plan("straight", **asked))
    kept = Journal._keep

    def killed(journal, start):
        kept(journal, start)
        if start.run.step == 10 and "seed-4" in str(journal._folder):
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "_keep", killed)
    with pytest.raises(KeyboardInterrupt):
        train_in_full(make_plan("killed", **asked))
    assert (tmp_path / "killed" / "seed-4" / "checkpoints" / "step-10").is_dir()
    monkeypatch.undo()
    went_on = trained(make_plan("killed", **asked))
    assert untimed(went_on) == untimed(straight)
    assert left(tmp_path / "killed") == left(tmp_path / "straight")
    assert went_on["seeds"][1]["details"]["training"] == {"from_step": 10}
    assert not list((tmp_path / "killed").rglob("checkpoints"))


# trains as the command does, but never keeps what its last run measured: nobody is too quick to be killed
ENDLESS = """
import sys, time
import workers.final
from workers.__main__ import main
keep = workers.final._keep
workers.final._keep = lambda found, seed, *where: time.sleep(600) if seed == 4 else keep(found, seed, *where)
main(["train", "--plan", sys.argv[1]])
"""


@pytest.mark.chaos
def test_kill_nine_between_two_checkpoints_changes_no_bit(make_plan, tmp_path):
    asked = {"seeds": (3, 4), "checkpoint_steps": 5, "epochs": 20.0}
    straight = trained(make_plan("straight", **asked))
    plan = make_plan("killed", **asked)
    (tmp_path / "plan.json").write_text(json.dumps(plan.to_json()))
    command = [sys.executable, "-P", "-c", ENDLESS, str(tmp_path / "plan.json")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline, second = time.monotonic() + 400, tmp_path / "killed" / "seed-4"
    try:
        while not (second / "checkpoints" / "latest.json").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert not (second / "metrics.json").exists()
    went_on = trained(plan)
    assert untimed(went_on) == untimed(straight)
    assert left(tmp_path / "killed") == left(tmp_path / "straight")
    assert went_on["seeds"][1]["details"]["training"]["from_step"] >= 5


def test_a_damaged_checkpoint_costs_steps_and_no_right_value(make_plan, tmp_path, monkeypatch):
    straight = trained(make_plan("straight", checkpoint_steps=5))
    monkeypatch.setattr("workers.final._keep", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train_in_full(make_plan("killed", checkpoint_steps=5))
    monkeypatch.undo()
    file = tmp_path / "killed" / "seed-1000" / "checkpoints" / "step-10" / "training.pt"
    file.write_bytes(file.read_bytes()[:-1])
    went_on = trained(make_plan("killed", checkpoint_steps=5))
    assert untimed(went_on) == untimed(straight)
    assert "training" not in went_on["seeds"][0]["details"]


def test_what_has_ended_is_not_trained_again(make_plan, monkeypatch):
    plan = make_plan(seeds=(1,))
    first = trained(plan)
    monkeypatch.setattr("workers.final.evaluate", lambda *_: pytest.fail("it was trained again"))
    assert trained(plan) == first
    (plan.trainings[0].output / "metrics.json").unlink()
    assert untimed(trained(plan)) == untimed(first)


def test_a_micro_batch_gives_the_same_step_up_to_rounding(make_plan):
    whole, parts = (trained(make_plan(name, micro_batch=size)) for name, size in (("whole", None), ("parts", 3)))
    assert parts["seeds"][0]["details"]["training"] == {"accumulation": 3}
    for (step, loss), (other, same) in zip(whole["seeds"][0]["curve"], parts["seeds"][0]["curve"], strict=True):
        assert (step, loss) == (other, pytest.approx(same, abs=1e-5))


@pytest.mark.parametrize("precision", ["mixed", "bf16", "fp16"])
def test_sixteen_bits_learn_about_the_same(make_plan, precision):
    exact, rounded = (trained(make_plan(kind, precision=kind)) for kind in ("fp32", precision))
    losses = [run["seeds"][0]["values"]["loss"] for run in (exact, rounded)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], abs=0.05)


def test_the_promise_is_held_against_what_came(make_plan, study, configuration):
    figures = (Figure("accuracy", 0.5, 1.0, 3), Figure(PARAMETERS, 256, None, 0), Figure("peak_memory", 1e6, None, 3))
    origin = provenance(study, trial_of(configuration), None, "peft", Promise(figures, True, 12))
    metrics = trained(make_plan(origin=origin))
    found = {(one["objective"], one["split"]): one["answer"] for one in metrics["promise"]}
    assert found == {
        ("accuracy", "validation"): "within the interval",
        ("accuracy", "test"): "within the interval",
        (PARAMETERS, None): "equal",
        ("peak_memory", None): "depends on machine and load",
    }
    longer = trained(make_plan("longer", origin=origin, epochs=3))
    assert longer["promise"][0]["answer"] == "trained otherwise than promised"


class TestData:
    @pytest.fixture
    def copied(self, task_folder, tmp_path):
        """The task's files in a folder of their own, some of them changed."""

        def copy(name, **changed):
            folder = tmp_path / name
            folder.mkdir()
            for split in ("train", "validation", "test"):
                text = changed.get(split, (task_folder / f"{split}.jsonl").read_text())
                if text is not None:
                    (folder / f"{split}.jsonl").write_text(text)
            return folder

        return copy

    def asked_of(self, make_study, folder, task_folder):
        """A study of ``folder`` whose data are recorded to be those of ``task_folder``."""
        recorded = load_task(TaskSpec(source=str(task_folder))).data_sha256
        return make_study(task=folder, environment={"data": recorded})

    def test_rows_elsewhere_are_the_same_rows(self, make_plan, make_study, copied, task_folder):
        asked = self.asked_of(make_study, copied("moved"), task_folder)
        assert untimed(trained(make_plan("moved-out", asked=asked))) == untimed(trained(make_plan()))

    def test_other_rows_than_the_search_had_are_refused(self, make_plan, make_study, copied, task_folder):
        rows = (task_folder / "train.jsonl").read_text().splitlines()
        folder = copied("changed", train="\n".join(rows[1:]) + "\n")
        with pytest.raises(TaskError, match=r"not those of the search.*--task"):
            train_in_full(make_plan(asked=self.asked_of(make_study, folder, task_folder)))

    def test_poisoned_test_labels_change_the_test_score_and_nothing_else(
        self, make_plan, make_study, copied, task_folder
    ):
        rows = [json.loads(line) for line in (task_folder / "test.jsonl").read_text().splitlines()]
        turned = [row | {"label": "good" if row["label"] == "bad" else "bad"} for row in rows]
        folder = copied("poisoned", test="\n".join(map(json.dumps, turned)) + "\n")
        poisoned = trained(make_plan("p", asked=self.asked_of(make_study, folder, task_folder)))
        clean = trained(make_plan())
        assert poisoned["test"]["mean"] == pytest.approx(1 - clean["test"]["mean"])
        assert poisoned["test_sha256"] != clean["test_sha256"]
        assert poisoned["seeds"][0]["sha256"] == clean["seeds"][0]["sha256"]
        assert poisoned["validation"] == clean["validation"]

    def test_a_test_split_that_cannot_be_read_costs_no_training(self, make_plan, make_study, copied, task_folder):
        folder = copied("broken", test="this is no JSON\n")
        plan = make_plan(asked=self.asked_of(make_study, folder, task_folder))
        with pytest.raises(TaskError, match=r"test\.jsonl"):
            train_in_full(plan)
        assert not plan.trainings[0].output.exists()

    def test_a_task_without_a_test_split_is_trained_all_the_same(self, make_plan, make_study, copied, task_folder):
        folder = copied("no-test", test=None)
        metrics = trained(make_plan(asked=self.asked_of(make_study, folder, task_folder)))
        assert (metrics["test"], metrics["rows"]["test"], metrics["test_sha256"]) == (None, 0, None)
        assert metrics["validation"]["runs"] == 1


def test_what_cannot_be_trained_is_said_before_anything_is(make_plan, study):
    shallow = Configuration((LayerPlan(),) * 3, Choices(1e-3))
    with pytest.raises(ConfigurationError, match="has 3 layers"):
        train_in_full(make_plan(plan=shallow))
    with pytest.raises(ConfigurationError, match="expected one of tensorboard, mlflow, wandb"):
        train_in_full(make_plan(tracker="paper"))


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_names_its_extra(make_plan, monkeypatch, name):
    monkeypatch.setattr("autopeft.trackers.find_spec", lambda _name: None)
    with pytest.raises(ConfigurationError, match=rf"pip install 'autopeft\[{name}\]'"):
        train_in_full(make_plan(tracker=name))


def test_a_plan_reads_back_equal(make_plan):
    plan = make_plan(precision="bf16", epochs=2.0, tracker="wandb")
    assert FinalPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    with pytest.raises(ConfigurationError, match="schema"):
        FinalPlan.from_json({"schema": "autopeft.final-plan/9"})


def test_rungs_of_the_search_are_no_matter_of_the_final_training(make_plan, make_study):
    laddered = make_study(fidelity=Fidelity(12, 8, 32, (3, 7)))
    assert untimed(trained(make_plan("rungs", asked=laddered))) == untimed(trained(make_plan()))


def test_a_configuration_that_chooses_is_handed_over_as_it_chose(make_plan, study, tmp_path):
    """Each seed chooses for itself; the folder holds what the kept one chose."""
    table = uniform(study.backbone, study.backbone.roles, Lora(2, 4.0), 2e-2)
    asked = replace(table, training=Choices(2e-2, selection=Selection(ratio=0.5, search_fraction=0.5)))
    metrics = trained(make_plan(plan=asked, seeds=(1000, 1001)))
    [kept] = [run for run in metrics["seeds"] if run["seed"] == metrics["kept_seed"]]
    found = kept["details"]["selection"]
    assert kept["values"][PARAMETERS] == found["parameters"] < found["supernet_parameters"]
    saved = json.loads((tmp_path / "final" / "configuration.json").read_text())
    assert saved == asked.keeping({(layer, site) for layer, site in found["kept"]}).to_json()
    assert "mean gate" in (tmp_path / "final" / "score_sheet.svg").read_text()
