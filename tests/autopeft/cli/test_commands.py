"""The commands that read, on a record made by hand; what they print, and what bad input gets."""

import json
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from autopeft.errors import EvaluationError
from autopeft.store import Store
from autopeft.study import Measurement, Origin, Proposal
from search_spaces.configuration import Configuration, LayerPlan, Training
from search_spaces.presets import control

CUT = {"rows": 3, "of": 1200, "tokens": 4100, "share": 0.012}


@pytest.fixture
def record(tmp_path, make_study):
    """A database with one study: the head alone, the control, two searched trials and a failed one."""
    url = f"sqlite:///{tmp_path}/record.db"
    study = make_study()
    head_only = Configuration((LayerPlan(),) * 2, Training(1e-3))
    plans = list(control(study.backbone, 512, 2e-3).values())
    proposals = [Proposal(head_only, Origin.REFERENCE, "head only")]
    proposals += [Proposal(plan, Origin.CONTROL, f"control {i}") for i, plan in enumerate(plans[:1])]
    proposals += [Proposal(plan, Origin.MODEL) for plan in control(study.backbone, 512, 1e-3).values()]
    with Store.open(url, create=True) as store:
        store.create_study(study)
        epoch = store.acquire_driver(study.name, "test")
        store.enqueue(study.name, epoch, proposals[:5])
        for accuracy, cost in ((0.55, 0), (0.7, 64), (0.8, 64), (0.9, 128)):
            order = store.lease("w", study.name)
            values = {"accuracy": accuracy, "trainable_parameters": cost, "loss": 0.3}
            values |= {"train_seconds": 1.0, "evaluate_seconds": 0.5}
            details = {"learned": {"kept": [1, 0]}, "truncation": {"training": CUT}}
            measured = Measurement(0, values, ((1, 1.1), (10, 0.7)), details=details)
            store.report(order.trial_id, order.attempt, measured)
        order = store.lease("w", study.name)
        store.report_diverged(order.trial_id, order.attempt, "the loss is nan at step 3")
    return url


def test_front_json_is_one_document_of_the_promised_form(autopeft, record):
    code, out, err = autopeft("front", "--db", record, "--json")
    assert (code, err) == (0, "")
    data = json.loads(out)
    assert data["schema"] == "autopeft.front/1"
    assert [member["trial"] for member in data["members"]] == [2, 3]
    assert [member["trial"] for member in data["control"]] == [1]


@pytest.mark.parametrize("wrong", [("--engine", "kubernetes"), ("--workers", "0")])
def test_what_could_not_start_leaves_the_targets_as_they_are(autopeft, record, wrong):
    with Store.open(record) as store:
        before = store.study(None)
    for command in (("resume", "--trials", "99"), ("confirm", "--seeds", "3"), ("references",)):
        code, _, err = autopeft(*command, "--db", record, *wrong)
        assert (code, err.count("\n"), wrong[1] in err) == (2, 1, True)
    with Store.open(record) as store:
        assert store.study(None) == before
        assert len(store.trials(before.name)) == 5


@pytest.mark.parametrize("wrong", [("--engine", "kubernetes"), ("--workers", "0")])
def test_a_dry_run_refuses_what_the_search_would(autopeft, wrong):
    code, _, err = autopeft("search", "--dry-run", *wrong)
    assert (code, err.count("\n"), wrong[1] in err) == (2, 1, True)


def test_front_within_a_tighter_budget(autopeft, record):
    code, out, _ = autopeft("front", "--db", record, "--json", "--budget", "100")
    assert code == 0
    assert [member["trial"] for member in json.loads(out)["members"]] == [2]


def test_a_front_of_other_objectives_than_the_studys(autopeft, record):
    code, out, _ = autopeft("front", "--db", record, "--json", "--objectives", "accuracy,stored_bytes,train_seconds")
    assert code == 0
    data = json.loads(out)
    assert [objective["name"] for objective in data["objectives"]] == ["accuracy", "stored_bytes", "train_seconds"]
    assert [axis["origin"] for axis in data["box"]] == ["measured", "exact", "measured"]
    # both trials took a second: the one that stores less is on the front for that, the other for its accuracy
    assert [member["trial"] for member in data["members"]] == [2, 3]
    text = autopeft("front", "--db", record, "--objectives", "accuracy,stored_bytes,train_seconds")[1]
    assert "fraction         stored       training   layers" in text.splitlines()[0]


def test_a_front_of_something_that_was_never_measured_is_empty_and_says_why(autopeft, record):
    code, _, err = autopeft("front", "--db", record, "--objectives", "accuracy,peak_memory")
    assert code == 5
    assert "left out: trials 1, 2, 3 without a figure of every objective" in err


def test_the_front_says_how_likely_each_member_is_on_it(autopeft, record):
    data = json.loads(autopeft("front", "--db", record, "--json", "--probability")[1])
    chances = {row["trial"]: row["probability"] for row in data["probabilities"]}
    assert {2, 3} <= set(chances)
    assert all(0 <= chance <= 1 for chance in chances.values())
    text = autopeft("front", "--db", record, "--probability")[1].splitlines()
    assert text[0].endswith("probability")
    assert text[1].endswith(f"{chances[2]:.0%}")
    assert "probabilities" not in json.loads(autopeft("front", "--db", record, "--json")[1])


def test_an_empty_front_has_an_exit_code_of_its_own(autopeft, record):
    code, _, err = autopeft("front", "--db", record, "--budget", "10")
    assert code == 5
    assert "is empty" in err


def test_a_quantised_and_an_unquantised_trial_share_no_front_silently(autopeft, record, tmp_path):
    with sqlite3.connect(tmp_path / "record.db") as connection:
        known = connection.execute("SELECT id, environment FROM attempt WHERE outcome = 'COMPLETE'").fetchall()
        for number, environment in known:
            bits = "4bit" if number == known[-1][0] else "none"
            changed = json.dumps(json.loads(environment) | {"quantisation": bits})
            connection.execute("UPDATE attempt SET environment = ? WHERE id = ?", (changed, number))
    code, out, err = autopeft("front", "--db", record)
    assert code == 2
    assert out == ""
    assert "mixes environments (quantisation 4bit and none)" in err


def test_a_front_of_different_environments_is_said_and_can_be_forced(autopeft, record, tmp_path):
    with sqlite3.connect(tmp_path / "record.db") as connection:
        (one,) = connection.execute("SELECT max(attempt.id) FROM attempt WHERE outcome = 'COMPLETE'").fetchone()
        connection.execute("UPDATE attempt SET environment = ? WHERE id = ?", (json.dumps({"torch": "1.0"}), one))
    code, _, err = autopeft("front", "--db", record)
    assert code == 2
    assert "mixes environments (torch 1.0 and unknown)" in err
    code, out, _ = autopeft("front", "--db", record, "--any-environment")
    assert code == 0
    assert out.endswith("mixed environments: torch 1.0 and unknown\n")
    code, out, _ = autopeft("front", "--db", record, "--any-environment", "--json")
    assert code == 0
    assert json.loads(out)["mixed_environments"] == {"torch": ["1.0", "unknown"]}


def test_status_says_what_device_time_was_used_and_its_price(autopeft, record, tmp_path):
    used = next(line for line in autopeft("status", "--db", record)[1].splitlines() if line.startswith("used"))
    assert used.endswith("CPU-worker hours")
    with sqlite3.connect(tmp_path / "record.db") as connection:
        connection.execute("UPDATE attempt SET started_at = 720 * trial_id, finished_at = 720 * trial_id + 720")
        (spec,) = connection.execute("SELECT spec FROM study").fetchone()
        spec = json.dumps({**json.loads(spec), "hour_price": 2.5})
        connection.execute("UPDATE study SET device_hours = 2, spec = ?", (spec,))
    assert "used     1 of 2 CPU-worker hours, 2.50 at 2.5 an hour" in autopeft("status", "--db", record)[1]
    data = json.loads(autopeft("status", "--db", record, "--json")[1])
    assert (data["device_seconds"], data["device_hours"], data["price"]) == (3600, 2, 2.5)


def test_a_search_whose_device_time_is_used_up_is_not_resumed(autopeft, record, tmp_path):
    with sqlite3.connect(tmp_path / "record.db") as connection:
        connection.execute("UPDATE attempt SET started_at = 720 * trial_id, finished_at = 720 * trial_id + 720")
        connection.execute("UPDATE study SET device_hours = 1, trials = 100000")
    code, _, err = autopeft("resume", "--db", record)
    assert code == 1
    assert "has used 1 of its 1 hours of device time; autopeft resume tiny-1 --gpu-hours 2 goes on" in err


def test_trials_can_be_filtered_by_state(autopeft, record):
    code, out, _ = autopeft("trials", "--db", record, "--json", "--state", "diverged")
    assert code == 0
    (row,) = json.loads(out)["trials"]
    assert row["error"] == "the loss is nan at step 3"


def test_status_and_show_say_which_rows_do_not_fit(autopeft, record):
    said = "3 of 1,200 training rows do not fit and lose their beginning: 4,100 tokens, 1.2 % of all"
    assert f"rows     {said}" in autopeft("status", "--db", record)[1]
    assert json.loads(autopeft("status", "--db", record, "--json")[1])["truncation"] == {"training": CUT}
    assert f"rows           {said}" in autopeft("show", "2", "--db", record)[1]


def test_status_counts_the_states(autopeft, record):
    code, out, _ = autopeft("status", "--db", record)
    assert code == 0
    assert "4 complete, 1 diverged" in out
    assert json.loads(autopeft("status", "--db", record, "--json")[1])["states"] == {"COMPLETE": 4, "DIVERGED": 1}


def test_show_prints_the_score_sheet(autopeft, record):
    code, out, _ = autopeft("show", "3", "--layers", "--db", record)
    assert code == 0
    assert "query" in out
    assert "learning rate  0.001" in out


def test_show_as_json_holds_what_was_learned(autopeft, record):
    data = json.loads(autopeft("show", "3", "--db", record, "--json")[1])
    assert data["details"] == {"learned": {"kept": [1, 0]}, "truncation": {"training": CUT}}
    assert data["curve"] == [[1, 1.1], [10, 0.7]]


def test_db_check_looks_for_adapters_where_it_is_told(autopeft, make_study, tmp_path):
    study, url = make_study(), f"sqlite:///{tmp_path}/kept.db"
    plan = study.search_space.sample(np.random.default_rng(0), study.budget.parameters)
    (tmp_path / "elsewhere" / "adapter").mkdir(parents=True)
    with Store.open(url, create=True) as store:
        store.create_study(study)
        store.enqueue(study.name, store.acquire_driver(study.name, "driver"), [Proposal(plan, Origin.MODEL)])
        order = store.lease("w", None)
        measured = Measurement(order.rung, {"accuracy": 0.5, "loss": 1.0}, artifact="adapter", sha256="a" * 64)
        store.report(order.trial_id, order.attempt, measured)
    assert autopeft("db", "check", "--db", url, "--artifacts", tmp_path / "elsewhere")[:2] == (0, "sound\n")
    code, out, _ = autopeft("db", "check", "--db", url)
    assert (code, "checkpoint adapter is not in" in out) == (1, True)


def test_reading_commands_do_not_write(autopeft, record, tmp_path):
    file = tmp_path / "record.db"
    file.chmod(0o444)
    before = file.read_bytes()
    for command in (["status"], ["trials"], ["front"], ["show", "2"]):
        assert autopeft(*command, "--db", record)[0] == 0
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["front", "--db", "none.db"], 3, "none.db"),
        (["show", "99", "--db", "{record}"], 3, "99"),
        (["front", "--study", "other", "--db", "{record}"], 3, "other"),
        (["trials", "--state", "DONE", "--db", "{record}"], 2, "expected one of"),
        (["front", "--budget", "lots", "--db", "{record}"], 2, "expected a fraction"),
        (["front", "--objectives", "accuracy,flop", "--db", "{record}"], 2, "did you mean 'forward_flops'"),
        (["front", "--objectives", "loss,stored_bytes", "--db", "{record}"], 2, "accuracy, the quality of this task"),
        (["front", "--jsn"], 2, "--json"),
        (["fornt"], 2, "front"),
        (["export", "2", "--to", "zip", "-o", "out", "--db", "{record}"], 2, "zip"),
        (["train", "nowhere"], 3, "nowhere"),
        (["search", "--print-config", "-o", "buget=3"], 2, "did you mean 'budget'"),
        (["search", "--trials", "none"], 2, "--trials"),
        (["search", "--cache", "big"], 2, "expected one of off, fp32, fp16, auto"),
        (["resume", "--cache", "big", "--db", "{record}"], 2, "expected one of off, fp32, fp16, auto"),
        (["resume", "--cache", "off", "--engine", "ray", "--db", "{record}"], 2, "with engine ray"),
        (["resume", "--pack", "many", "--db", "{record}"], 2, "expected off, auto, or a whole number"),
        (["resume", "--pack", "4", "--engine", "ray", "--db", "{record}"], 2, "autopeft worker --pack N"),
        (["worker", "--pack", "0", "--db", "{record}"], 2, "--pack"),
        (["worker", "--cache", "big", "--db", "{record}"], 2, "expected one of off, fp32, fp16, auto"),
        (["search", "--db", "sqlite:x"], 2, "sqlite:///FILE"),
        (["front", "--db", "mysql://host/db"], 2, "of kind 'mysql'"),
        (["front", "--db", "sqlite://"], 2, "sqlite:///FILE"),
        (["front", "--db", "."], 2, "is a folder"),
        (["train", "2", "-o", "record.db/run", "--db", "{record}"], 2, "record.db/run: cannot be written: "),
        (["search", "--dry-run", "--device-memory", "x"], 2, "error: device memory 'x': expected an amount above 0"),
        (["search", "--dry-run", "--prior", "probe-1", "--db", "none.db"], 3, "prior probe-1: no file of that name"),
        (["space", "show", "nowhere.yaml"], 2, "nowhere.yaml"),
    ],
)
def test_bad_input_gets_one_clear_line_and_its_exit_code(autopeft, record, arguments, code, words):
    got, out, err = autopeft(*[word.replace("{record}", record) for word in arguments])
    assert got == code, err
    assert words in err
    assert out == ""
    assert len(err.strip().splitlines()) == 1


def test_a_file_that_is_no_database_is_named(autopeft, tmp_path):
    (tmp_path / "text.db").write_text("this is a text, not a database, and long enough to be sure of it" * 20)
    code, _, err = autopeft("front", "--db", "text.db")
    assert code in (1, 4)
    assert "text.db" in err


def test_an_older_and_a_newer_database_are_told_apart(autopeft, record, tmp_path):
    connection = sqlite3.connect(tmp_path / "record.db")
    connection.execute("UPDATE alembic_version SET version_num = 'f00f00f00f00'")
    connection.commit()
    connection.close()
    code, _, err = autopeft("front", "--db", record)
    assert code == 4
    assert "upgrade autopeft" in err


def test_a_locked_database_is_a_failure_with_a_message(record, tmp_path, monkeypatch, autopeft):
    connection = sqlite3.connect(tmp_path / "record.db", isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        monkeypatch.setattr("autopeft.store.database.BUSY_SECONDS", 0.2)
        code, _, err = autopeft("resume", "--db", record)
    finally:
        connection.close()
    assert code == 1
    assert "locked" in err


def test_settings_are_shown_with_their_origins(autopeft, monkeypatch):
    monkeypatch.setenv("AUTOPEFT_TRIALS", "9")
    code, out, _ = autopeft("search", "--print-config", "--budget", "1%", "-o", "seed=4")
    assert code == 0
    assert 'budget: "1%"' in out
    assert "# environment" in out
    data = json.loads(autopeft("search", "--print-config", "--json")[1])
    assert data["settings"]["trials"] == 9


def test_db_current_names_both_revisions(autopeft, record):
    data = json.loads(autopeft("db", "current", "--db", record, "--json")[1])
    assert data["current"] == data["head"]


def test_db_upgrade_makes_a_new_database(autopeft, tmp_path):
    assert autopeft("db", "upgrade", "--db", "new.db")[0] == 0
    assert (tmp_path / "new.db").exists()


def test_spaces_are_listed_shown_and_counted(autopeft, monkeypatch, tiny_backbone):
    monkeypatch.setattr("autopeft.adapters.models.backbone_shapes", lambda source: tiny_backbone)
    assert "layerwise" in autopeft("space", "ls")[1]
    assert "ranks" in autopeft("space", "show", "layerwise")[1]
    data = json.loads(autopeft("space", "size", "layerwise", "--budget", "512", "--json")[1])
    assert data["configurations"] == 7**6 - 1
    assert 0 < data["share_within"] < 1
    assert autopeft("space", "size", "layerwise", "--budget", "10")[0] == 5


def test_a_space_shown_is_a_space_file(autopeft, monkeypatch, tiny_backbone, tmp_path):
    monkeypatch.setattr("autopeft.adapters.models.backbone_shapes", lambda source: tiny_backbone)
    (tmp_path / "mine.yaml").write_text(autopeft("space", "show", "layerwise")[1])
    assert json.loads(autopeft("space", "show", "mine.yaml", "--json")[1])["name"] == "layerwise"


def test_doctor_says_what_is_there(autopeft):
    code, out, _ = autopeft("doctor")
    assert code == 0
    assert "torch" in out


def test_a_closed_pipe_is_no_traceback(record):
    command = f"{sys.executable} -m autopeft.cli trials --db {record} | true"
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in answer.stderr


def test_an_unexpected_error_is_one_line_without_v(autopeft, monkeypatch, record):
    def broken(*_):
        raise EvaluationError("worker said no")

    monkeypatch.setattr("autopeft.report.status_text", broken)
    code, _, err = autopeft("status", "--db", record)
    assert (code, err) == (1, "error: worker said no\n")


def test_help_shows_every_word(autopeft):
    """Rich takes words in square brackets for markup, and leaves them out."""
    from typer.main import get_command

    def walk(command, path=()):
        for parameter in command.params:
            yield " ".join((*path, parameter.name)), getattr(parameter, "help", None) or ""
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, (*path, name))

    from autopeft.cli.main import app

    found = dict(walk(get_command(app)))
    assert len(found) > 100
    assert [name for name, text in found.items() if "[" in text] == []
    assert "the checkpoint declares" in " ".join(autopeft("search", "--help")[1].replace("│", "").split())
