"""The command line as its users run it, in this process."""

import sys

import pytest

from autopeft.cli.main import main


@pytest.fixture
def autopeft(monkeypatch, capsys, tmp_path):
    """(exit code, stdout, stderr) of the command line, in this process."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["autopeft", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run
