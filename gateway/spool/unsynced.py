"""Bytes on their way to the disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Unsynced:
    """Files of a stream whose bytes may be the kernel's alone, the one that is being written last."""

    descriptors: tuple[int, ...]
    segment: int  # the last one
    directory: Path | None  # if its entry in the folder is not on the disk either

    def sync(self) -> None:
        """Wait for the disk, which takes long: call it in a thread. Raises OSError; never try the same files again."""
        for descriptor in self.descriptors:
            os.fdatasync(descriptor)
        if self.directory is not None:
            folder = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
