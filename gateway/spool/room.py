"""How much the spools of a node may still grow.

The bound is on the files of all workers together, and no worker can ask anybody: each looks at the folder once in a
while, and takes off what it has written itself since. So the files may exceed the bound by what the other workers write
between two looks.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

SEGMENTS = 256  # into so many a scarce room is divided, so that most of what is shipped can be deleted
UNBOUNDED = sys.maxsize


class Room:
    """What the writers of one worker may append together."""

    __slots__ = ("_used", "left", "most")

    def __init__(self, most: int = UNBOUNDED) -> None:
        self.most = most  # bytes
        self.left = most  # the writers take off what they write
        self._used = 0

    def measured(self, used: int) -> None:
        """The files have so many bytes now."""
        self._used = used
        self.left = self.most - used

    @property
    def full(self) -> bool:
        return self.left <= 0

    @property
    def short_segments(self) -> int:
        """The bytes after which a segment should end for want of room, 0 while there is plenty."""
        return self.most // SEGMENTS if self._used > self.most // 2 else 0


def used(directory: Path) -> int:
    """Bytes of the files in a folder. Takes a microsecond or two a file; call it in a thread."""
    total = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                total += entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:  # deleted meanwhile
                continue
    return total
