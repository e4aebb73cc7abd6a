"""Exports from the page: what would be lost, and the archive that ``autopeft export`` writes. No Streamlit, no torch.

The command runs as a child process and writes the archive itself, so that the download is what the command writes.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from autopeft.errors import ExportError
from autopeft.export import TARGETS
from autopeft.export.archive import names_in
from autopeft.export.holding import hold, hold_of
from autopeft.settings import DEFAULT_DATABASE
from autopeft.study import Study
from search_spaces.configuration import Configuration

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


def lost(study: Study, configuration: Configuration, target: str) -> tuple[str, ...]:
    """What ``target`` cannot hold of a trial, one line each; all of it where it can hold nothing."""
    held = hold_of(study, configuration, target)
    if held.configuration.is_empty and target not in ("autopeft", "script"):
        return (*held.lost, f"{target} can hold nothing of this trial")
    return held.lost


def can_hold_something(study: Study, configuration: Configuration, target: str) -> bool:
    """Whether ``target`` can hold any part of the plan."""
    return (
        target in ("autopeft", "script") or not hold(target, configuration, study.backbone, None).configuration.is_empty
    )


def shown_command(url: str, study: str, number: int, target: str, lossy: bool = False) -> str:
    """The command that does the same in a terminal; an address with a password is left to the environment."""
    output = f"runs/{study}-{number}-{target}"
    words = ["autopeft", "export", str(number), "--to", target, "-o", output, "--study", study]
    if lossy:
        words.append("--lossy")
    if url.startswith("sqlite:///") and url != DEFAULT_DATABASE:
        words += ["--db", url]
    return shlex.join(words)


def export(url: str, study: str, number: int, target: str, lossy: bool = False) -> Packed:
    """The export of a trial, verified by the command that wrote it.

    Raises:
        ExportError: If it fails; with the command's own last line.
    """
    name = f"{study}-{number}-{target}"
    with tempfile.TemporaryDirectory(prefix="autopeft-export-") as scratch:
        archive = Path(scratch) / f"{name}.zip"
        command = [sys.executable, "-P", "-m", "autopeft.cli", "export", str(number)]
        command += ["--to", target, "--output", str(archive), "--study", study, *(["--lossy"] if lossy else [])]
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
        return Packed(archive.name, archive.read_bytes(), tuple(names_in(archive)))


__all__ = ["TARGETS", "Packed", "can_hold_something", "export", "lost", "shown_command"]
