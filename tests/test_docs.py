"""The documents: every command is parsed by the real command line and, unless its block says what it needs, run."""

import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer.main

from autopeft.cli.main import app, main
from autopeft.launch import WorkerPlan
from autopeft.store import Store

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAM = typer.main.get_command(app)

BLOCK = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND_KINDS = ("", "console", "bash", "sh")
NEEDS = {
    "slurm": "a Slurm cluster",
    "ray": "a Ray cluster",
    "postgres": "a PostgreSQL server",
    "gpu": "a GPU",
    "hub": "the Hugging Face hub, or its cache",
    "browser": "somebody who looks, and stops it",
    "time": "hours",
    "failure": "a trial that failed",
    "models": "models of your own",
    "bitsandbytes": "the extra bitsandbytes",
    "order": "what the page made before: tests/test_examples.py runs it as a whole",
    "make": "an environment of its own",
}
"""What a block may say that it needs (```` ```console needs=gpu ````); it is parsed and not run."""

SMALL = {
    "search": ["--trials", "2", "--train-rows", "16", "--validation-rows", "12", "--workers", "1"],
    "worker": ["--idle-seconds", "1"],
    "resume": ["--trials", "21"],
    "importance": ["--steps", "8", "--train-rows", "24"],
    "select": ["--steps", "8", "--train-rows", "24"],
    "train": ["--seeds", "1"],
    "finalize": ["--seeds", "1"],
}
"""What is added to a documented command so that it is quick."""

STAND_INS = {"minilm": "path/to/bert", "aspects": "path/to/data"}
"""Words of a documented command, and what stands for them: a tiny model, a few rows."""


@dataclass(frozen=True)
class Line:
    """One command of a document."""

    page: str
    text: str
    needs: str | None

    @property
    def parts(self):
        """The commands of a pipe, as words; redirections stand as ``>``."""
        lexer = shlex.shlex(self.text, posix=True, punctuation_chars="|>&;")
        lexer.whitespace_split, found = True, [[]]
        lexer.commenters = "#"
        for word in lexer:
            if word in ("|", "&&", ";"):
                found.append([])
            else:
                found[-1].append(word)
        return found


def commands(page):
    """Each ``autopeft …`` and ``python …`` line of the fenced blocks of a page."""
    for block in BLOCK.finditer(page.read_text()):
        kind, *more = block["info"].split() or [""]
        if kind not in COMMAND_KINDS:
            continue
        needs = next((word.removeprefix("needs=") for word in more if word.startswith("needs=")), None)
        for text in block["text"].replace("\\\n", " ").splitlines():
            text = text.removeprefix("$ ")
            if re.match(r"(autopeft|python3?) ", text):
                yield Line(page.relative_to(ROOT).as_posix(), text, needs)


LINES = sorted({line for page in PAGES for line in commands(page)}, key=lambda line: (line.page, line.text))


def parse(words):
    """Parses the words after ``autopeft`` as the command line does; runs nothing."""
    words = list(words)
    while words and words[0] in ("-q", "--quiet", "-v", "--verbose"):
        words.pop(0)
    command, name = PROGRAM, "autopeft"
    while hasattr(command, "commands"):
        assert words, f"{name}: which of its commands?"
        name = words.pop(0)
        assert name in command.commands, f"no command {name!r}"
        command = command.commands[name]
    command.make_context(name, words)


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.page}: {line.text}")
def test_a_documented_command_is_one_that_the_command_line_takes(line):
    assert line.needs is None or line.needs in NEEDS, f"needs={line.needs}: expected one of {', '.join(NEEDS)}"
    for words in line.parts:
        if ">" in words:
            words = words[: words.index(">")]
        if words[0] == "autopeft":
            parse(words[1:])
        elif words[0].startswith("python") and (files := [word for word in words if word.endswith(".py")]):
            assert (ROOT / files[0]).is_file(), line


def test_every_block_says_what_it_needs_in_known_words():
    for page in PAGES:
        for block in BLOCK.finditer(page.read_text()):
            words = [word for word in block["info"].split() if word.startswith("needs=")]
            assert all(word.removeprefix("needs=") in NEEDS for word in words), f"{page.name}: {block['info']}"


def inline():
    """Each command in running text, with the page it stands on."""
    for page in PAGES:
        for line in re.findall(r"`(autopeft [^`]*)`", BLOCK.sub("", page.read_text())):
            yield page.name, " ".join(line.split())


@pytest.mark.parametrize(("page", "line"), sorted(set(inline())))
def test_a_command_in_running_text_exists_with_its_flags(page, line):
    words = shlex.split(line.split(" | ")[0].split(" > ")[0].replace("…", ""))[1:]
    if not words or words[0].startswith("-"):
        return
    command = PROGRAM.commands.get(words[0])
    assert command is not None, f"{page}: {line}"
    if hasattr(command, "commands"):
        if len(words) == 1 or "|" in words[1]:
            return
        command = command.commands[words[1]]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    used = {word for word in words if word.startswith("-") and word != "-"}
    assert used <= known | {"-h", "--help"}, f"{page}: {line}"


def test_blocks_of_python_are_python():
    for page in PAGES:
        for block in BLOCK.finditer(page.read_text()):
            if block["info"].split()[:1] == ["python"] and not block["text"].rstrip().endswith(":"):
                compile(block["text"], f"{page.name}", "exec")


def test_links_between_documents_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_document_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text()
    missing = [page.name for page in PAGES if page.parent.name == "docs" and f"]({page.name})" not in index]
    assert missing == ["README.md"], "docs/README.md is the index: name these there"


def test_every_module_folder_of_the_readme_exists():
    for name in re.findall(r"^(\w+)/ ", (ROOT / "README.md").read_text(), re.MULTILINE):
        assert (ROOT / name).is_dir()


def reference():
    """The pages of commands and spaces, written from the programs themselves."""
    from search_spaces.presets import DESCRIPTIONS

    yield "## Commands\n"
    for name, command in sorted(PROGRAM.commands.items()):
        inner = getattr(command, "commands", None)
        for full, one in [(f"{name} {sub}", c) for sub, c in sorted(inner.items())] if inner else [(name, command)]:
            yield f"### `autopeft {full}`\n"
            yield f"{' '.join(one.help.split())}\n"
            yield "| | |\n|---|---|"
            for parameter in one.params:
                names = [f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts)]
                if parameter.param_type_name == "argument":
                    names = [f"`{parameter.name.upper()}`"]
                yield f"| {', '.join(names)} | {' '.join((parameter.help or '').split()).replace('|', chr(92) + '|')} |"
            yield ""
    yield "## Named spaces\n"
    yield "| `--space` | what is searched |\n|---|---|"
    yield from (f"| `{name}` | {text} |" for name, text in DESCRIPTIONS.items())


def test_the_reference_of_commands_is_what_the_commands_say():
    path = ROOT / "docs" / "commands.md"
    start, end = "<!-- written by this test with WRITE_DOCS=1 -->\n", "\n<!-- end -->"
    before, rest = path.read_text().split(start)
    written, after = rest.split(end)
    expected = "\n".join(reference())
    if os.environ.get("WRITE_DOCS"):
        path.write_text(before + start + expected + end + after)
    else:
        assert written == expected, "WRITE_DOCS=1 pytest tests/test_docs.py -k reference"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with a tiny model, a few rows, and a finished study ``aspects-1`` of plain LoRA, which pages export."""
    folder = tmp_path_factory.mktemp("reader")
    _tiny_model(folder / "path" / "to" / "bert")
    _few_rows(folder / "path" / "to" / "data")
    (folder / "scores.json").write_text(json.dumps({"layer": [0.1, 0.2]}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        _surroundings(patch)
        arguments = "search --study aspects-1 --space layerwise --trials 20 --initial 16 --proposer sobol --budget 100k"
        assert _run(patch, [*arguments.split(), "--workers", "1", "--train-rows", "16", "--validation-rows", "12"]) == 0
    return folder


@pytest.fixture(scope="module")
def searched():
    """Commands that ran on some page: a search need not run twice."""
    return set()


class Here:
    """An engine whose one worker is a thread of this process: a process for every search would take minutes."""

    def __init__(self, _name, url, study, artifacts, *_):
        self.plans = [WorkerPlan("cpu", 1)]
        self._given, self._leave = (url, study, artifacts), threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self):
        from workers.inside import Inside

        url, study, artifacts = self._given
        inside = Inside("cpu", artifacts)
        with Store.open(url) as store:
            while not self._leave.is_set():
                order = store.lease("here", study)
                if order is None:
                    self._leave.wait(0.05)
                    continue
                store.report(order.trial_id, order.attempt, inside.measure(order, lambda _steps: None)[0])

    def start(self):
        self._thread.start()

    def ensure_alive(self):
        assert self._thread.is_alive(), "the worker died"

    @property
    def alive_count(self):
        return int(self._thread.is_alive())

    def drain(self):
        self._leave.set()

    def stop(self):
        self._leave.set()
        self._thread.join()


def _surroundings(patch):
    patch.setattr("autopeft.running.make_engine", Here)
    for name in [name for name in os.environ if name.startswith("AUTOPEFT_") and name != "AUTOPEFT_CACHE_DIR"]:
        patch.delenv(name)
    for name, value in {"MODEL": "path/to/bert", "TASK": "path/to/data", "STEPS": "2", "BATCH_SIZE": "4"}.items():
        patch.setenv(f"AUTOPEFT_{name}", value)


def _run(patch, words):
    if words[0] in ("worker", "dashboard"):  # which become another program
        return subprocess.run([sys.executable, "-P", "-m", "autopeft.cli", *words], check=False, timeout=300).returncode
    patch.setattr(sys, "argv", ["autopeft", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


def _tiny_model(folder):
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=20_000, max_position_embeddings=64, **sizes)).save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "good", "bad", "room", "view", "was", "the"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)


def _few_rows(folder):
    folder.mkdir(parents=True)
    generator = random.Random(0)
    for split, count in (("train", 40), ("validation", 20), ("test", 12)):
        labels = [generator.choice(["good", "bad"]) for _ in range(count)]
        rows = [{"text": f"the {generator.choice(['room', 'view'])} was {label}", "label": label} for label in labels]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _quick(words):
    """The documented words with what makes them quick; a flag that is given twice means its last value."""
    words = [STAND_INS.get(word, word) for word in words]
    more = SMALL.get(words[0], [])
    if words[0] == "search" and "--epochs" in words:
        more = [*more, "--epochs", "0.2"]
    return [*words, *more]


RUNNABLE = sorted({line.page for line in LINES if line.needs is None and line.text.startswith("autopeft ")})


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE)
def test_every_command_of_a_page_runs(page, workplace, searched, tmp_path, monkeypatch, capfd):
    folder = tmp_path / "work"
    shutil.copytree(workplace, folder)
    monkeypatch.chdir(folder)
    _surroundings(monkeypatch)
    for line in commands(ROOT / page):
        if line.needs is not None or not line.text.startswith("autopeft "):
            continue
        words = line.parts[0]
        if words[1] == "search" and line.text in searched:
            continue
        searched.add(line.text)
        target = words[words.index(">") + 1] if ">" in words else None
        words = words[: words.index(">")] if target else words
        with pytest.MonkeyPatch.context() as patched:
            if "--epochs" in words:
                patched.delenv("AUTOPEFT_STEPS")
            if (
                words[1] == "search" and "--prior" not in words
            ):  # so that what follows is of the study that has trials 17 and 23
                patched.setenv("AUTOPEFT_DB", "sqlite:///searches.db")
            code = _run(patched, _quick(words[1:]))
        captured = capfd.readouterr()
        assert code == 0, f"{page}: {line.text}: exit code {code}\n{captured.err[-3000:]}"
        if target:
            Path(target).write_text(captured.out)
