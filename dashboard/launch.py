"""How the dashboard is started: Streamlit's command line with its unsafe defaults turned off. Imports no Streamlit."""

from __future__ import annotations

import os
import sys
from pathlib import Path

APP = Path(__file__).with_name("app.py")

_OPTIONS = {
    "server.address": "127.0.0.1",  # Streamlit's default is every interface
    "server.fileWatcherType": "none",
    "server.showEmailPrompt": "false",
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


def dashboard_command(db_url: str, port: int, headless: bool) -> tuple[list[str], dict[str, str]]:
    """(argv, environment) of the dashboard's server process.

    Args:
        db_url: Database to show; handed over in the environment, since it may hold a password.
        port: Port on 127.0.0.1.
        headless: Do not open a browser.
    """
    options = _OPTIONS | {"server.port": str(port), "server.headless": str(headless).lower()}
    argv = [sys.executable, "-P", "-m", "streamlit", "run", str(APP)]
    argv += [f"--{name}={value}" for name, value in options.items()]
    return argv, {**os.environ, "AUTOPEFT_DB": db_url}
