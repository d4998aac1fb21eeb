"""Files held under `flock` for the life of their writer: how processes learn that another one died.

A lock is the kernel's: it goes with the process, however that ends, and needs no pid, no timer and no clean-up.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from pathlib import Path


def create_locked(path: Path, content: bytes) -> int:
    """Create a file that is locked by this process and holds `content` from the first moment it is visible.

    Returns the open descriptor (read and write, append). Raises FileExistsError if the path is taken, OSError
    otherwise; nothing is left behind then.
    """
    # A name of its own: two who race for one path must not share, lock or unlink the same inode.
    hidden = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.write(descriptor, content) != len(content):
            raise OSError(errno.ENOSPC, "short write, is the disk full?")
        os.link(hidden, path)  # unlike a rename, refuses a path that exists
    except OSError:
        os.close(descriptor)
        raise
    finally:
        hidden.unlink(missing_ok=True)
    return descriptor


def is_locked(path: Path) -> bool:
    """Whether a living process holds the file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def give_to_owner(descriptor: int, folder: Path) -> None:
    """What root writes into somebody's folder is for that somebody to read, and to remove."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
