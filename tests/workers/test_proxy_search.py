"""A search on a sibling of half the depth, as a user runs it: costs of the model, verdict and weights of the model."""

import json
import os
import subprocess
import sys

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def siblings(tmp_path_factory, checkpoint):
    """Folders of a BERT of four layers and of its two-layer sibling."""
    folders = []
    for layers in (4, 2):
        torch.manual_seed(0)
        shape = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": layers}
        folders.append(tmp_path_factory.mktemp(f"bert-{layers}"))
        words = AutoTokenizer.from_pretrained(checkpoint("bert"))
        sizes = {"vocab_size": len(words), "max_position_embeddings": 40, "initializer_range": 0.2}
        BertModel(BertConfig(**shape, **sizes)).save_pretrained(folders[-1])
        words.save_pretrained(folders[-1])
    return folders


def test_a_search_on_a_sibling_ends_with_a_verdict_and_weights_of_the_model(siblings, task_folder, tmp_path):
    model, sibling = siblings

    def types(*arguments):
        command = [sys.executable, "-P", "-m", "autopeft.cli", *map(str, arguments)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    asked = ["search", "--model", model, "--proxy-model", sibling, "--task", task_folder, "--budget", "15%"]
    asked += ["--space", "layerwise"]
    short = ["--trials", 4, "--steps", 8, "--batch-size", 8, "--workers", 1, "--proposer", "random"]
    refused = types(*asked, "--objectives", "accuracy,train_seconds", *short)
    assert refused.returncode == 2
    assert "train_seconds would be measured on it" in refused.stderr

    searched = types(*asked, *short, "--reference", "serial")
    assert searched.returncode == 0, searched.stderr
    assert "(2 layers for 4)" in searched.stderr
    assert "trained on both: Kendall" in searched.stdout

    front = json.loads(types("front", "--json").stdout)
    assert front["proxy"]["ranks"]["count"] >= 3
    rows = json.loads(types("trials", "--json").stdout)["trials"]
    assert {row["state"] for row in rows} == {"COMPLETE"}
    assert {len(row["configuration"]["layers"]) for row in rows} == {4}
    again = {row["digest"]: row for row in rows if row["origin"] == "confirmation"}
    for row in rows:
        if row["digest"] in again:
            assert row["values"]["trainable_parameters"] == again[row["digest"]]["values"]["trainable_parameters"]

    beside = [one for one in front["references"] if one["values"]["trainable_parameters"]]
    assert beside and all(one["label"].startswith("serial") for one in beside)

    best = front["members"][-1]
    assert types("export", best["trial"], "--to", "autopeft", "-o", "no").returncode != 0
    confirmed = again[best["digest"]]["trial"] if "digest" in best else next(iter(again.values()))["trial"]
    exported = types("export", confirmed, "--to", "autopeft", "-o", "yes")
    assert exported.returncode == 0, exported.stderr
    assert len(json.loads((tmp_path / "yes" / "configuration.json").read_text())["layers"]) == 4
