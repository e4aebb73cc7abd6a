"""Makes a folder appear whole: built beside its place, flushed to disk, verified by its builder, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from autopeft.errors import ConfigurationError

MARKER = "verify.json"
"""The file that every finished export holds, written last."""


def publish(build: Callable[[Path], None], output: Path, overwrite: bool) -> Path:
    """Runs ``build`` on an empty folder beside ``output``, then puts that folder in its place.

    Args:
        build: Fills the folder; what it raises leaves nothing behind.
        output: Where the folder shall stand.
        overwrite: Replace an earlier export.

    Raises:
        ConfigurationError: If ``output`` is in use or cannot be written.
    """
    output = output.absolute()
    _require_free(output, overwrite)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".part", dir=output.parent))
    except OSError as error:
        raise ConfigurationError(f"output {output}: cannot be written: {error.strerror or error}") from error
    try:
        build(draft)
        draft.chmod(0o755)
        _flush(draft)
        _require_free(output, overwrite)
        _swap(draft, output)
    except OSError as error:
        raise ConfigurationError(f"output {output}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return output


def _require_free(output: Path, overwrite: bool) -> None:
    if not output.exists() and not output.is_symlink():
        return
    if not output.is_dir() or output.is_symlink():
        raise ConfigurationError(f"output {output}: exists and is not a folder; name another")
    if not any(output.iterdir()):
        return
    if not (output / MARKER).is_file():
        raise ConfigurationError(f"output {output}: is not empty and holds no earlier export; name another folder")
    if not overwrite:
        raise ConfigurationError(f"output {output}: holds an earlier export; add --overwrite or name another folder")


def _flush(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _swap(draft: Path, output: Path) -> None:
    """Renames ``draft`` to ``output``; an earlier export stands aside until that is done, and comes back on failure."""
    if not output.exists() or not any(output.iterdir()):
        draft.rename(output)
        return
    earlier = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".old", dir=output.parent))
    output.rename(earlier)
    try:
        draft.rename(output)
    except OSError:
        earlier.rename(output)
        raise
    shutil.rmtree(earlier, ignore_errors=True)
