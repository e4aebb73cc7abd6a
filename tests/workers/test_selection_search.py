"""A search whose trials choose their own modules (``diffora/learned``), as a user runs it, to a stock adapter."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def test_a_search_of_diffora_learned_ends_in_adapters_of_what_the_trials_kept(checkpoint, task_folder, tmp_path):
    def types(*arguments):
        command = [sys.executable, "-P", "-m", "autopeft.cli", *map(str, arguments)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    asked = ["search", "--model", checkpoint(), "--task", task_folder, "--space", "diffora/learned", "--budget", "10%"]
    types(*asked, "--trials", 2, "--steps", 10, "--batch-size", 8, "--workers", 1, "--confirm", 0, "--control-rates", 1)
    searched = [row for row in json.loads(types("trials", "--json"))["trials"] if row["origin"] in ("initial", "model")]
    assert [row["state"] for row in searched] == ["COMPLETE"] * 2
    for row in searched:
        asked_for = row["configuration"]["training"]["selection"]
        chosen = json.loads(types("show", row["trial"], "--json"))["details"]["selection"]
        assert chosen["ratio"] == asked_for["ratio"]
        assert 0 < len(chosen["kept"]) < sum(len(layer) for layer in row["configuration"]["layers"])
        assert chosen["parameters"] == row["values"]["trainable_parameters"] < chosen["supernet_parameters"]
        assert 0 < chosen["paid_steps"] < 10

    types("export", row["trial"], "--to", "peft", "-o", "exported")
    config = json.loads((tmp_path / "exported" / "adapter_config.json").read_text())
    assert len(config["target_modules"]) == len(chosen["kept"])
    held = json.loads((tmp_path / "exported" / "configuration.json").read_text())
    assert sorted([index, site] for index, layer in enumerate(held["layers"]) for site in layer) == chosen["kept"]
    assert "selection" not in held["training"]
