"""``python -P -m dashboard``: becomes the Streamlit server of the dashboard."""

from __future__ import annotations

import argparse
import os
import sys

from autopeft.errors import AutopeftError
from autopeft.settings import database_url
from dashboard.launch import dashboard_command


def main() -> int:
    """Replaces this process by Streamlit; an exit code comes back only if the database's address is not valid."""
    parser = argparse.ArgumentParser(prog="python -m dashboard", description="Shows studies in the browser.")
    parser.add_argument("--port", type=int, default=8501, help="port to listen on")
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on; others than this need a password")
    parser.add_argument("--headless", action="store_true", help="do not open a browser")
    asked = parser.parse_args()
    try:
        argv, environment = dashboard_command(database_url(None), asked.port, asked.headless, asked.address)
    except AutopeftError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    host = f"[{asked.address}]" if ":" in asked.address else asked.address
    print(f"dashboard at http://{host}:{asked.port} (Ctrl-C ends it)", file=sys.stderr, flush=True)
    sys.stdout.flush()
    return os.execve(argv[0], argv, environment)


if __name__ == "__main__":
    sys.exit(main())
