"""The documents name commands, flags and files that exist."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from autopeft.cli.main import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = typer.main.get_command(app).commands


def documented():
    """Each ``autopeft …`` line of a fenced block or of inline code, with the page it stands on."""
    for page in PAGES:
        for line in re.findall(r"^autopeft [^\n]*|`(autopeft [^`]*)`", page.read_text(), re.MULTILINE):
            if line:
                yield page.name, line
        for block in re.findall(r"```\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.splitlines():
                if line.startswith("autopeft "):
                    yield page.name, line.split("#")[0].strip()


@pytest.mark.parametrize(("page", "line"), sorted(set(documented())))
def test_a_documented_command_exists_with_its_flags(page, line):
    words = shlex.split(line.split(" | ")[0].split(" > ")[0].replace("…", ""))[1:]
    command = COMMANDS.get(words[0]) if words else None
    if words and words[0].startswith("-"):
        return
    assert command is not None, f"{page}: {line}"
    if hasattr(command, "commands"):
        if len(words) == 1 or "|" in words[1]:
            return
        command = command.commands[words[1]]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    used = {word for word in words if word.startswith("-") and word != "-"}
    assert used <= known | {"-h", "--help"}, f"{page}: {line}"


def test_links_between_documents_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_module_folder_of_the_readme_exists():
    for name in re.findall(r"^(\w+)/ ", (ROOT / "README.md").read_text(), re.MULTILINE):
        assert (ROOT / name).is_dir()
