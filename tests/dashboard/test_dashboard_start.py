"""How the dashboard starts, and what its export button runs."""

import os
import subprocess
import sys
import zipfile

import pytest

from autopeft.errors import ConfigurationError, ExportError
from dashboard import exporting
from dashboard.launch import PASSWORD, dashboard_command


def test_the_server_listens_here_only_sends_nothing_and_shows_no_traceback():
    argv, environment = dashboard_command("sqlite:///a.db", 8600, headless=True)
    for option in (
        "--server.address=127.0.0.1",
        "--server.port=8600",
        "--server.headless=true",
        "--browser.gatherUsageStats=false",
        "--logger.hideWelcomeMessage=true",
        "--client.showErrorDetails=none",
        "--theme.light.primaryColor=#0f766e",
    ):
        assert option in argv
    assert environment["AUTOPEFT_DB"] == "sqlite:///a.db"
    assert not any("a.db" in word for word in argv)


def test_streamlit_knows_every_option_that_is_set():
    from streamlit import config

    argv, _ = dashboard_command("sqlite:///a.db", 8600, headless=True)
    names = {word.removeprefix("--").partition("=")[0] for word in argv if word.startswith("--")}
    assert names <= set(config.get_config_options())


def test_an_address_that_is_none_is_one_line():
    environment = {**os.environ, "AUTOPEFT_DB": "  "}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "dashboard"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: database")
    assert len(done.stderr.splitlines()) == 1


def test_the_dashboard_loads_no_torch():
    code = (
        "import sys, dashboard.app;"
        "print(sorted({'torch', 'transformers', 'peft', 'botorch', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.fixture
def command(monkeypatch):
    """Replaces the child process by a function of its arguments."""
    calls = []

    def install(run):
        def fake(argv, **options):
            calls.append((argv, options))
            return run(argv)

        monkeypatch.setattr(exporting.subprocess, "run", fake)
        return calls

    return install


def test_an_export_is_the_archive_that_the_command_wrote(command):
    def write(argv):
        archive = exporting.Path(argv[argv.index("--output") + 1])
        with zipfile.ZipFile(archive, "w") as opened:
            opened.writestr("aspects-1-7-peft/README.md", "card")
        written.append(archive.read_bytes())
        return subprocess.CompletedProcess(argv, 0, "", "")

    written = []
    calls = command(write)
    packed = exporting.export("sqlite:///a.db", "aspects-1", 7, "peft", lossy=True)
    assert packed == exporting.Packed("aspects-1-7-peft.zip", written[0], ("README.md",))
    argv, options = calls[0]
    assert argv[1:5] == ["-P", "-m", "autopeft.cli", "export"]
    assert argv[-1] == "--lossy"
    assert options["env"]["AUTOPEFT_DB"] == "sqlite:///a.db"


def test_a_failed_export_gives_the_last_line_of_the_command(command):
    command(lambda argv: subprocess.CompletedProcess(argv, 6, "", "note\nerror: verification failed\n"))
    with pytest.raises(ExportError, match=r"^verification failed$"):
        exporting.export("sqlite:///a.db", "aspects-1", 7, "peft")


def test_what_would_be_lost_is_told_without_loading_a_model(make_study, tiny_backbone):
    from search_spaces.configuration import uniform
    from search_spaces.methods.lora import Lora

    study, plan = make_study(), uniform(tiny_backbone, ("query",), Lora(2, 4.0), 1e-3)
    assert exporting.lost(study, plan, "peft") == ()
    assert "head" in exporting.lost(study, plan, "trl")[0]
    assert exporting.can_hold_something(study, plan, "trl")


@pytest.mark.parametrize("address", ["0.0.0.0", "192.168.1.2", "::"])
def test_an_address_that_others_reach_needs_a_long_password(address, monkeypatch):
    monkeypatch.delenv(PASSWORD, raising=False)
    with pytest.raises(ConfigurationError, match="got none"):
        dashboard_command("sqlite:///a.db", 8600, True, address)
    monkeypatch.setenv(PASSWORD, "short")
    with pytest.raises(ConfigurationError, match="one of 5 characters"):
        dashboard_command("sqlite:///a.db", 8600, True, address)
    monkeypatch.setenv(PASSWORD, "long enough, this")
    argv, _ = dashboard_command("sqlite:///a.db", 8600, True, address)
    assert f"--server.address={address}" in argv


def test_the_command_refuses_an_open_address_in_one_line():
    environment = {key: value for key, value in os.environ.items() if key != PASSWORD}
    command = [sys.executable, "-P", "-m", "dashboard", "--address", "0.0.0.0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_the_shown_command_can_be_pasted_and_holds_no_password():
    shown = exporting.shown_command("sqlite:////data/my runs.db", "aspects-1", 7, "autopeft")
    assert shown.endswith("--db 'sqlite:////data/my runs.db'")
    assert "secret" not in exporting.shown_command("postgresql://me:secret@host/db", "aspects-1", 7, "peft")
