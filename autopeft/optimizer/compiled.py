"""Code that BoTorch compiles on first use, kept for the next process.

Torch builds an extension in a folder that all processes of a user share, behind a lock file that a killed process
leaves for ever. Here every process has a folder of its own, which begins as a copy of what an earlier one built.
"""

from __future__ import annotations

import atexit
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path

from autopeft.settings import cache_folder

VARIABLE = "TORCH_EXTENSIONS_DIR"


def kept_folder() -> Path:
    """Where built code is kept: by host, since it is built for its processor, and by version."""
    return cache_folder() / "compiled" / f"{platform.node()}-torch{version('torch')}-botorch{version('botorch')}"


@contextmanager
def compiled() -> Iterator[None]:
    """What torch builds while this is open is kept, and what was kept is not built again.

    A folder that the user named by ``TORCH_EXTENSIONS_DIR`` is left to torch.
    """
    if VARIABLE in os.environ:
        yield
        return
    folder, kept = _own_folder(), kept_folder()
    os.environ[VARIABLE] = str(folder)
    try:
        yield
    finally:
        del os.environ[VARIABLE]
    if not kept.is_dir() and any(folder.rglob("*.so")):
        _keep(folder, kept)


@cache
def _own_folder() -> Path:
    """This process's, until it ends."""
    folder = Path(tempfile.mkdtemp(prefix="autopeft-torch-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if (kept := kept_folder()).is_dir():
        shutil.copytree(kept, folder, dirs_exist_ok=True)
    return folder


def _keep(folder: Path, kept: Path) -> None:
    """Copies what was built, whole or not at all; a disk that is full or read-only costs the next process its time."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".building-", dir=kept.parent) as building:
            shutil.copytree(folder, Path(building) / "whole")
            (Path(building) / "whole").rename(kept)
    except OSError:  # another process was first, or there is no room
        return
