"""Takes away files that nobody will need any more: checkpoints of trials that have ended, and what was never reported.

Which those are, the record says (``Store.forget_checkpoints``); pointers go first, files after.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path


def sweep(artifacts: Path, study: str, remaining: Mapping[int, Sequence[str]]) -> None:
    """Removes the folders of attempts at the trials in ``remaining`` but for those that it names.

    Files that are out of reach, or cannot be removed, stay: that is no reason to end a search.

    Args:
        artifacts: Root folder of artifacts; where workers share no folder with it, there is nothing to find.
        study: Name of the study.
        remaining: Artifacts to keep by number of the trial, relative to ``artifacts``.
    """
    for number, kept in remaining.items():
        folder = artifacts / study / f"trial-{number}"
        if not folder.is_dir():
            continue
        for attempt in folder.iterdir():
            if attempt.relative_to(artifacts).as_posix() not in kept:
                shutil.rmtree(attempt, ignore_errors=True)
        if not kept and not any(folder.iterdir()):
            folder.rmdir()
