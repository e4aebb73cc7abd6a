"""Which file systems SQLite must not be used on: those of a network, where its locks fail and files get damaged."""

from __future__ import annotations

import os
from pathlib import Path

from autopeft.errors import ConfigurationError

INSTEAD = "use a server that all hosts reach: --db postgresql://USER@HOST/DATABASE"
NETWORKED = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "afs", "glusterfs", "panfs"}
NETWORKED |= {"fuse.sshfs", "fuse.s3fs", "fuse.glusterfs", "fuse.ceph", "fuse.gcsfuse", "fuse.rclone", "fuse.juicefs"}
MOUNTS = Path("/proc/self/mounts")


def require_local(path: Path) -> None:
    """Nothing, if ``path`` lies on a file system of this host.

    Raises:
        ConfigurationError: If it lies on a network file system.
    """
    kind = file_system(path)
    if kind in NETWORKED:
        raise ConfigurationError(
            f"database {path} lies on a network file system ({kind}), where SQLite's locks fail: {INSTEAD}"
        )


def file_system(path: Path) -> str | None:
    """Kind of the file system that ``path`` lies on, or will; None where it cannot be told."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    where = os.path.realpath(path)
    best: tuple[int, str] | None = None
    for line in lines:
        fields = line.split()
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ")
        inside = where == point or where.startswith(point.rstrip("/") + "/")
        if inside and (best is None or len(point) >= best[0]):
            best = len(point), fields[2]
    return best[1] if best else None
