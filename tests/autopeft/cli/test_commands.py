"""The commands that read, on a record made by hand; what they print, and what bad input gets."""

import json
import sqlite3
import subprocess
import sys

import pytest

from autopeft.cli.main import main
from autopeft.errors import EvaluationError
from autopeft.store import Store
from autopeft.study import Measurement, Origin, Proposal
from search_spaces.configuration import Configuration, LayerPlan, Training
from search_spaces.presets import control


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
            store.report(order.trial_id, order.attempt, Measurement(0, values))
        order = store.lease("w", study.name)
        store.report_diverged(order.trial_id, order.attempt, "the loss is nan at step 3")
    return url


def run(monkeypatch, capsys, *arguments):
    """(exit code, stdout, stderr) of the command line, in this process."""
    monkeypatch.setattr(sys, "argv", ["autopeft", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    return ended.value.code or 0, captured.out, captured.err


@pytest.fixture
def autopeft(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: run(monkeypatch, capsys, *arguments)


def test_front_json_is_one_document_of_the_promised_form(autopeft, record):
    code, out, err = autopeft("front", "--db", record, "--json")
    assert (code, err) == (0, "")
    data = json.loads(out)
    assert data["schema"] == "autopeft.front/1"
    assert [member["trial"] for member in data["members"]] == [2, 3]
    assert [member["trial"] for member in data["control"]] == [1]


def test_front_within_a_tighter_budget(autopeft, record):
    code, out, _ = autopeft("front", "--db", record, "--json", "--budget", "100")
    assert code == 0
    assert [member["trial"] for member in json.loads(out)["members"]] == [2]


def test_an_empty_front_has_an_exit_code_of_its_own(autopeft, record):
    code, _, err = autopeft("front", "--db", record, "--budget", "10")
    assert code == 5
    assert "is empty" in err


def test_a_front_of_different_environments_is_said_and_can_be_forced(autopeft, record, tmp_path):
    with sqlite3.connect(tmp_path / "record.db") as connection:
        (one,) = connection.execute("SELECT max(attempt.id) FROM attempt WHERE outcome = 'COMPLETE'").fetchone()
        connection.execute("UPDATE attempt SET environment = ? WHERE id = ?", (json.dumps({"torch": "1.0"}), one))
    code, _, err = autopeft("front", "--db", record)
    assert code == 2
    assert "mixes environments (torch 1.0 and unknown)" in err
    assert autopeft("front", "--db", record, "--any-environment")[0] == 0


def test_trials_can_be_filtered_by_state(autopeft, record):
    code, out, _ = autopeft("trials", "--db", record, "--json", "--state", "diverged")
    assert code == 0
    (row,) = json.loads(out)["trials"]
    assert row["error"] == "the loss is nan at step 3"


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
        (["front", "--jsn"], 2, "--json"),
        (["fornt"], 2, "front"),
        (["export", "2", "--to", "zip", "-o", "out", "--db", "{record}"], 2, "zip"),
        (["train", "nowhere"], 3, "nowhere"),
        (["search", "--print-config", "-o", "buget=3"], 2, "did you mean 'budget'"),
        (["search", "--trials", "none"], 2, "--trials"),
        (["search", "--db", "sqlite:x"], 2, "sqlite:///FILE"),
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
