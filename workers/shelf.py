"""Entries on disk by key, shared by all processes of a host: whole or not there, least recently used out first.

An entry is a folder of files with a manifest that holds their hashes. It is built under a lock in a folder of another
name and renamed when it is whole, so a kill in the middle leaves no wrong entry, and of two builders the second finds
what the first made. An entry that is evicted while a process maps its files stays readable there. What the entries
mean is not known here.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

SCHEMA = "autopeft.cache/1"
MANIFEST = "manifest.json"
LOCK_WAIT_SECONDS = 0.1
FREE_BYTES = 200_000_000
"""So much of the disk stays free, whatever the quota allows."""

PROBE_BYTES = 8_000_000

_BUILDING, _LEAVING = ".building-", ".leaving-"
_log = logging.getLogger(__name__)


def go_on() -> None:
    """Waits no shorter than it must."""


def key_of(parts: Mapping[str, object]) -> str:
    """Another key for every other value of a part; ``parts`` are plain JSON values."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:40]


@dataclass(frozen=True, slots=True)
class Shelf:
    """One folder of entries.

    Attributes:
        root: The folder; made when something is put there.
        quota_bytes: Most bytes of all entries together.
    """

    root: Path
    quota_bytes: int
    _checked: set[tuple[str, int]] = field(default_factory=set)

    def find(self, key: str) -> Path | None:
        """The folder of an entry that is whole, marked as just used; None if it is not there.

        Hashes are compared once a process; a damaged entry is thrown away.
        """
        folder = self.root / key
        try:
            status = folder.stat()
            if (key, status.st_ino) not in self._checked:
                if not _is_whole(folder):
                    _log.warning("cache entry %s is damaged: thrown away", folder)
                    self._throw_away(folder)
                    return None
                self._checked.add((key, status.st_ino))
            os.utime(folder)
        except FileNotFoundError:
            return None
        return folder

    def fill(
        self, key: str, size_bytes: int, write: Callable[[Path], None], waiting: Callable[[], None] = go_on
    ) -> Path:
        """The folder of the entry, written by ``write`` unless it is there.

        Args:
            key: Of the entry.
            size_bytes: About what it will take; older entries make room for it.
            write: Puts the files into the folder that it is given.
            waiting: Called while another process builds the entry; what it raises ends the wait.

        Raises:
            OSError: If the disk is full, or cannot be written.
        """
        if size_bytes > self.quota_bytes:
            raise OSError(f"{size_bytes:,} bytes are more than the cache's quota of {self.quota_bytes:,}")
        self.root.mkdir(parents=True, exist_ok=True)
        with self._locked(key, waiting):
            if (found := self.find(key)) is not None:
                return found
            self._sweep(key)
            self._make_room(size_bytes)
            part = self.root / f"{key}{_BUILDING}{os.getpid()}"
            part.mkdir()
            try:
                write(part)
                _seal(part)
                part.rename(self.root / key)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
        return self.root / key

    def entries(self) -> list[tuple[Path, int]]:
        """Folder and bytes of each entry, least recently used first."""
        found = []
        for folder in self.root.iterdir() if self.root.is_dir() else ():
            with suppress(FileNotFoundError, NotADirectoryError):
                if folder.is_dir() and "." not in folder.name:
                    size = sum(file.stat().st_size for file in folder.iterdir())
                    found.append((folder.stat().st_mtime_ns, folder, size))
        return [(folder, size) for _, folder, size in sorted(found)]

    def read_bytes_per_second(self) -> float:
        """How quickly the disk gives back what is not in memory, measured now with a small file.

        Raises:
            OSError: If nothing can be written.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.root) as file:
            file.write(os.urandom(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            started = time.perf_counter()
            file.read()
            return PROBE_BYTES / max(time.perf_counter() - started, 1e-9)

    def _make_room(self, size_bytes: int) -> None:
        entries = self.entries()
        held = sum(size for _, size in entries)
        for folder, size in entries:
            if held + size_bytes <= self.quota_bytes and self._free_bytes() >= size_bytes:
                return
            self._throw_away(folder)
            held -= size
        if self._free_bytes() < size_bytes:
            raise OSError(f"{self.root}: {size_bytes:,} bytes are needed, {self._free_bytes():,} are free")

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self.root).free - FREE_BYTES

    def _throw_away(self, folder: Path) -> None:
        """Takes the entry out of sight at once, then deletes it: nobody sees half of it."""
        leaving = folder.with_name(f"{folder.name}{_LEAVING}{os.getpid()}-{time.time_ns()}")
        with suppress(FileNotFoundError):
            folder.rename(leaving)
            shutil.rmtree(leaving, ignore_errors=True)

    def _sweep(self, key: str) -> None:
        """Deletes what builders of this entry left that were killed, and what was being thrown away."""
        for pattern in (f"{key}{_BUILDING}*", f"*{_LEAVING}*"):
            for left in self.root.glob(pattern):
                shutil.rmtree(left, ignore_errors=True)

    @contextmanager
    def _locked(self, key: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Holds the entry's lock, which the system frees when its holder dies."""
        with (self.root / f"{key}.lock").open("ab") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    waiting()
                    time.sleep(LOCK_WAIT_SECONDS)
            yield


def _seal(folder: Path) -> None:
    """Writes the manifest, last of all, once the other files are on the disk."""
    files = {}
    for file in sorted(folder.iterdir()):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            files[file.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    text = json.dumps({"schema": SCHEMA, "files": files}, indent=1)
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def _is_whole(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["schema"] != SCHEMA:
            return False
        for name, expected in manifest["files"].items():
            with (folder / name).open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != expected:
                    return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return True
