"""The example pages run as they stand: every command in order, in a folder of its own."""

import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def blocks(page):
    """(language, text) of every fenced block of the page that can run here, in order."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for info, inside in re.findall(r"^```([^\n]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        if "needs=bitsandbytes" not in info or find_spec("bitsandbytes"):
            yield info.split()[0], inside


def commands(page):
    """Each command of the page as a list of words, Python blocks as what Python is given."""
    for language, text in blocks(page):
        if language == "python":
            yield [sys.executable, "-c", text]
            continue
        for line in text.splitlines():
            program, *words = shlex.split(line, comments=True)
            first = {"autopeft": ["-P", "-m", "autopeft.cli"], "python": [str(ROOT / words[0])]}[program]
            yield [sys.executable, *first, *(words if program == "autopeft" else words[1:])]


@pytest.mark.slow
def test_the_chat_example_runs_from_a_model_to_an_answer(tmp_path):
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
    }
    said = []
    for command in commands("examples_chat.md"):
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"{command[1:]}\n{done.stdout}\n{done.stderr}"
        said.append(done.stdout)
    assert "GPU hours" in said[1] or "CPU-worker hours" in said[1]
    assert "control (LoRA rank sweep)" in said[2]
    assert (tmp_path / "demo" / "axolotl" / "axolotl.yaml").is_file()
    assert (tmp_path / "demo" / "vllm" / "adapter_config.json").is_file()
    answer = said[-1].split()
    assert answer
    assert set(answer) <= set((tmp_path / "demo" / "chats" / "train.jsonl").read_text().replace('"', " ").split())
