"""What is decided by the name of a header alone, once for each name."""

from __future__ import annotations

from collections.abc import Callable

MOST = 1024  # names to remember: clients choose them


class Verdicts(dict[bytes, bool]):
    """Whether something is so of a header."""

    def __init__(self, decide: Callable[[bytes], bool]) -> None:
        super().__init__()
        self._decide = decide

    def __missing__(self, name: bytes) -> bool:
        verdict = self._decide(name)
        if len(self) < MOST:
            self[name] = verdict
        return verdict
