"""The test split is read by ``train`` and ``finalize`` alone: everything else works beside one that nobody can read."""

import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from search_spaces.errors import ConfigurationError

pytestmark = pytest.mark.slow
SHORT = ["--steps", "3", "--workers", "2", "--trials", "2", "--initial", "2", "--confirm", "0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model, and a task whose test file is no JSON."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    root = tmp_path_factory.mktemp("poisoned")
    words = ["[PAD]", "[UNK]", "the", "room", "was", "great", "lovely", "awful", "poor"]
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=128, **sizes)).save_pretrained(root / "model")
    tokens = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    named = PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="[PAD]", unk_token="[UNK]")
    named.save_pretrained(root / "model")
    (root / "task").mkdir()
    generator = random.Random(0)
    for split, count in (("train", 60), ("validation", 40)):
        rows = [{"text": f"the room was {generator.choice(words[5:])}"} for _ in range(count)]
        texts = [
            json.dumps(row | {"label": "good" if row["text"].split()[-1] in words[5:7] else "bad"}) for row in rows
        ]
        (root / "task" / f"{split}.jsonl").write_text("\n".join(texts) + "\n")
    (root / "task" / "test.jsonl").write_text("this is no JSON\n")
    return root


def types(folder, *arguments):
    command = [sys.executable, "-P", "-m", "autopeft.cli", *map(str, arguments)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "AUTOPEFT_BUDGET": "2000"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    return done.returncode, done.stdout, done.stderr


def types_all(folder, *commands):
    """Each of independent commands with what it gave; two at a time, for most of a command is its imports."""
    with ThreadPoolExecutor(2) as pool:
        return list(zip(commands, pool.map(lambda command: types(folder, *command), commands), strict=True))


def test_only_train_and_finalize_read_the_test_split(folder):
    model = ["--model", folder / "model", "--task", folder / "task"]
    code, _, err = types(folder, "search", *model, *SHORT)
    assert code == 0, err
    for arguments, (code, _, err) in types_all(
        folder,
        ["confirm", "--seeds", 1, "--workers", 1],
        ["importance", *model, "--steps", 12],
        ["select", *model, "--steps", 4],
        ["front"],
        ["pick"],
        ["report"],
    ):
        assert code == 0, (arguments[0], err)
    members = json.loads(types(folder, "front", "--json")[1])["members"]
    number = members[0]["trial"]
    code, _, err = types(folder, "export", number, "--to", "autopeft", "-o", "exported")
    assert code == 0, err
    code, _, err = types(folder, "train", "exported", "--reproduce")
    assert code == 0, err

    final = ["--seeds", 1, "--threads", 1]
    for _, (code, _, err) in types_all(folder, ["train", number, *final], ["finalize", *final]):
        assert code == ConfigurationError.exit_code, err
        assert "test.jsonl cannot be read" in err

    rows = (folder / "task" / "validation.jsonl").read_text()
    (folder / "task" / "test.jsonl").write_text(rows)  # healed, the same commands go on
    code, out, err = types(folder, "finalize", *final, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["split"] == "test"
    assert {row["trial"] for row in found["members"] if row["side"] == "front"} == {row["trial"] for row in members}
    assert found["verdict"]["answer"] in ("better", "not distinguishable", "worse")
    assert "<script" not in (folder / "runs" / f"{found['study']}-final" / "final.html").read_text()
