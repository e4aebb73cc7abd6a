"""How the dashboard is started: Streamlit's command line with its unsafe defaults turned off. Imports no Streamlit."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from autopeft.errors import ConfigurationError

APP = Path(__file__).with_name("app.py")

PASSWORD = "AUTOPEFT_DASHBOARD_PASSWORD"
"""Environment variable with the password that a dashboard on another address asks for."""

SHORTEST = 12
"""Characters of such a password at least."""

LOCAL = ("127.0.0.1", "localhost", "::1")

_OPTIONS = {
    "server.address": "127.0.0.1",  # Streamlit's default is every interface
    "server.fileWatcherType": "none",
    "server.showEmailPrompt": "false",
    "logger.hideWelcomeMessage": "true",  # with it, its offers to install something, here and on every page
    "runner.magicEnabled": "false",
    "browser.gatherUsageStats": "false",
    "client.showErrorDetails": "none",
    "client.toolbarMode": "minimal",
    "theme.light.primaryColor": "#0f766e",
    "theme.light.linkColor": "#0f766e",
    "theme.light.textColor": "#1f2937",
    "theme.light.backgroundColor": "#ffffff",
    "theme.light.secondaryBackgroundColor": "#f4f6f8",
    "theme.dark.primaryColor": "#2dd4bf",
    "theme.dark.linkColor": "#2dd4bf",
    "theme.dark.textColor": "#f3f5f8",
    "theme.dark.backgroundColor": "#0e1117",
    "theme.dark.secondaryBackgroundColor": "#1a202a",
}


def dashboard_command(
    db_url: str, port: int, headless: bool, address: str = "127.0.0.1"
) -> tuple[list[str], dict[str, str]]:
    """(argv, environment) of the dashboard's server process.

    Args:
        db_url: Database to show; handed over in the environment, since it may hold a password.
        port: Port to listen on.
        headless: Do not open a browser.
        address: Address to listen on; one that other machines can reach needs a password in the environment.

    Raises:
        ConfigurationError: If that password is missing or short.
    """
    require_password(address, os.environ)
    options = _OPTIONS | {"server.port": str(port), "server.headless": str(headless).lower()}
    options["server.address"] = address
    argv = [sys.executable, "-P", "-m", "streamlit", "run", str(APP)]
    argv += [f"--{name}={value}" for name, value in options.items()]
    return argv, {**os.environ, "AUTOPEFT_DB": db_url}


def require_password(address: str, environment: Mapping[str, str]) -> None:
    """Nothing, if only this machine can reach ``address``, or a password is set.

    Raises:
        ConfigurationError: If not.
    """
    given = len(environment.get(PASSWORD, ""))
    if address not in LOCAL and given < SHORTEST:
        got = f"one of {given} characters" if given else "none"
        raise ConfigurationError(
            f"address {address}: other machines could read every study there, so {PASSWORD} must hold a password of at "
            f"least {SHORTEST} characters (got {got}); or leave --address away and use an SSH tunnel"
        )
