"""How workers ended, told by the supervisor, which alone hears it, to the control process, which alone counts.

One small file for each worker that ended unasked, beside its status page: `<spool>.end` holds a word. The page of the
dead says what the worker did; this file says whether that may have killed it.
"""

from __future__ import annotations

import signal
from pathlib import Path

SUFFIX = ".end"
EXIT = "exit"  # it ended by itself
UNKNOWN = "unknown"  # nobody was there to see it
MEMORY = "memory"  # told to leave, because it had grown too large; no death

# What native code dies of. Whatever else ends a worker (the kernel for want of memory, a person) says nothing about
# the model that happened to run.
NATIVE = frozenset({"SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP", "SIGSYS"})


def word(returncode: int) -> str:
    """The word for what `Popen` returns: a signal's name, or EXIT."""
    if returncode >= 0:
        return EXIT
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f"SIG{-returncode}"


def tell(directory: Path, spool: int, how: str) -> None:
    """Visible whole. Raises OSError if it cannot be written."""
    path = directory / f"{spool:08d}{SUFFIX}"
    temporary = path.with_suffix(".new")
    temporary.write_text(how)
    temporary.replace(path)


def told(directory: Path) -> dict[int, str]:
    """By spool: what was told and not yet forgotten."""
    found: dict[int, str] = {}
    for path in directory.glob(f"*{SUFFIX}"):
        if path.stem.isdigit():
            found[int(path.stem)] = path.read_text()
    return found


def forget(directory: Path, spool: int) -> None:
    (directory / f"{spool:08d}{SUFFIX}").unlink(missing_ok=True)
