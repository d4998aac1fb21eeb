"""What a process holds of memory, and what of it goes back to the system."""

from __future__ import annotations

import ctypes
import resource
from contextlib import suppress
from pathlib import Path

_M_MMAP_THRESHOLD = -3  # of mallopt(3)
LARGE = 1 << 20  # bytes of a block that has pages of its own
GROWTH = 128 << 20  # bytes: less is not worth the milliseconds that giving back takes


def resident(process: int | str = "self") -> int:
    """Bytes that a process holds, by its id. OSError if there is none."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize()


def keep_large_blocks_apart() -> None:
    """Large blocks are taken from the system and go back to it when they are freed, for the whole life of the process.

    glibc does so only until one is freed: it then takes blocks of up to that size, a body of many MiB say, from a heap
    of each thread, and what is freed of models between others that live stays with the process. Does nothing with
    another C library.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE)


def give_back() -> None:
    """Return to the system what has been freed; glibc would keep most of it for the next one who asks.

    Does nothing with another C library.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


class Tide:
    """When to give back: once memory has grown, for what brought it may have gone again. A thousand clients that read
    slowly leave hundreds of MiB behind that nothing else would return."""

    __slots__ = ("_low",)

    def __init__(self) -> None:
        self._low: int | None = None  # bytes that stayed after the last time

    def high(self, resident: int) -> bool:
        """Whether so much is worth giving back of."""
        if self._low is None or resident < self._low:
            self._low = resident
        return resident - self._low > GROWTH

    def ebbed(self, resident: int) -> None:
        """So much stayed: it is in use, and no reason to try again."""
        self._low = resident
