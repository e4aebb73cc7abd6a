"""Exports from the page: runs ``autopeft export`` in a child process and packs its files. No Streamlit, no torch."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from autopeft.errors import ExportError
from autopeft.settings import DEFAULT_DATABASE

TARGETS = {"peft": "stock PEFT", "autopeft": "AutoPEFT (lossless)"}
TIMEOUT_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Packed:
    """An export as one file.

    Attributes:
        name: File name for the download.
        content: The zip archive.
        files: Names in it.
    """

    name: str
    content: bytes
    files: tuple[str, ...]


def shown_command(url: str, study: str, number: int, target: str) -> str:
    """The command that does the same in a terminal; an address with a password is left to the environment."""
    output = f"runs/{study}-{number}-{target}"
    words = ["autopeft", "export", str(number), "--to", target, "-o", output, "--study", study]
    if url.startswith("sqlite:///") and url != DEFAULT_DATABASE:
        words += ["--db", url]
    return shlex.join(words)


def export(url: str, study: str, number: int, target: str) -> Packed:
    """The export of a trial, verified by the command that wrote it.

    Raises:
        ExportError: If it fails; with the command's own last line.
    """
    name = f"{study}-{number}-{target}"
    with tempfile.TemporaryDirectory(prefix="autopeft-export-") as scratch:
        folder = Path(scratch) / name
        command = [sys.executable, "-P", "-m", "autopeft.cli", "export", str(number)]
        command += ["--to", target, "--output", str(folder), "--study", study]
        try:
            done = subprocess.run(
                command,
                env={**os.environ, "AUTOPEFT_DB": url},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ExportError(f"the export of trial {number} did not end: {error}") from error
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise ExportError((lines or [f"exit code {done.returncode}"])[-1].removeprefix("error: "))
        return _packed(folder)


def _packed(folder: Path) -> Packed:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            archive.write(path, path.relative_to(folder.parent))
    return Packed(f"{folder.name}.zip", content.getvalue(), tuple(str(path.relative_to(folder)) for path in files))
