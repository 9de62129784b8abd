"""Where the store lies: whether that is on another machine, and how a damaged file gets out of the way."""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["inode", "is_remote", "set_aside"]

_REMOTE = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "davfs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"}
    | {"glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs"}
)
"""File systems that other machines may have mounted as well, as Linux names them."""


def is_remote(path: Path, mounts: str | None = None) -> bool:
    r"""Return whether a file is on a network file system; ``False`` where that cannot be told.

    SQLite's write-ahead log needs memory that all its users share, so they must be on one machine
    (sqlite.org/wal.html).

    >>> is_remote(Path("/home/ann/store"), "host:/x /home nfs4 rw 0 0\n/dev/a / ext4 rw 0 0")
    True
    """
    if os.name == "nt":
        return str(path.resolve()).startswith("\\\\")
    if mounts is None:
        try:
            mounts = Path("/proc/self/mounts").read_text("utf-8", "replace")
        except OSError:
            return False
        path = path.resolve()
    kinds: dict[Path, str] = {}
    for line in mounts.splitlines():
        _, folder, kind, *_ = line.split(" ")
        kinds[Path(folder.replace("\\040", " "))] = kind
    return next((kinds[folder] in _REMOTE for folder in (path, *path.parents) if folder in kinds), False)


def inode(path: Path) -> int:
    """Return what tells a file from another of the same name; 0 where there is none."""
    try:
        return path.stat().st_ino
    except (FileNotFoundError, NotADirectoryError):
        return 0


def set_aside(path: Path, damaged: int) -> Path | None:
    """Return the new name of a damaged file, moved with its log; ``None`` if another process was quicker.

    Args:
        path: where it is.
        damaged: the ``inode`` of the file that was found to be so.

    Raises:
        OSError: it cannot be moved.
    """
    if inode(path) != damaged:
        return None
    aside = path.with_name(f"{path.stem}.damaged-{time.strftime('%Y%m%d-%H%M%S')}{path.suffix}")
    # The file itself last: as soon as it is gone, another process may begin a new one, with a log of its own.
    for ending in ("-wal", "-shm", "-journal", ""):
        try:
            path.with_name(path.name + ending).replace(aside.with_name(aside.name + ending))
        except FileNotFoundError:
            if not ending:
                return None
    return aside
