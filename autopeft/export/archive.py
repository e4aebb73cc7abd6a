"""An export as one zip archive, the same to the byte for the same files: no times, no owners, sorted names."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from autopeft.errors import ConfigurationError
from autopeft.export.folder import MARKER

SUFFIX = ".zip"
"""An output of this suffix is an archive and no folder."""

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that the format holds."""


def publish_archive(build: Callable[[Path], None], output: Path, overwrite: bool) -> Path:
    """Runs ``build`` on an empty folder, then puts an archive of it in the place of ``output``, whole or not at all.

    Args:
        build: Fills the folder; what it raises leaves nothing behind.
        output: Where the archive shall stand; its files stand in a folder of its name.
        overwrite: Replace an earlier archive.

    Raises:
        ConfigurationError: If ``output`` is in use or cannot be written.
    """
    output = output.absolute()
    _require_free(output, overwrite)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", suffix=".part", dir=output.parent) as scratch:
            folder = Path(scratch) / "files"
            folder.mkdir()
            build(folder)
            draft = Path(scratch) / output.name
            with draft.open("wb") as stream:
                stream.write(zip_bytes(folder, output.stem))
                stream.flush()
                os.fsync(stream.fileno())
            draft.replace(output)
    except OSError as error:
        raise ConfigurationError(f"output {output}: cannot be written: {error.strerror or error}") from error
    return output


def zip_bytes(folder: Path, name: str) -> bytes:
    """The archive of ``folder``; every file stands in a folder called ``name``."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(f"{name}/{path.relative_to(folder).as_posix()}", EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, also where Python would say otherwise
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes())
    return content.getvalue()


def names_in(archive: Path) -> list[str]:
    """The files of an archive that ``publish_archive`` wrote, without the folder that they stand in."""
    with zipfile.ZipFile(archive) as opened:
        return [name.partition("/")[2] for name in opened.namelist()]


def _require_free(output: Path, overwrite: bool) -> None:
    if not output.exists() and not output.is_symlink():
        return
    if output.is_symlink() or not zipfile.is_zipfile(output) or MARKER not in names_in(output):
        raise ConfigurationError(f"output {output}: exists and is no earlier export; name another")
    if not overwrite:
        raise ConfigurationError(f"output {output}: holds an earlier export; add --overwrite or name another")
