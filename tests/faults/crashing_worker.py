"""A worker in which some models crash as native code does: no exception, a signal that takes the process down.

Started in the place of `gateway.worker` by `crashing_node`. The file that `CRASHES` in the environment names has lines
of `<run|load> <digest>`; it is looked at every time, so a test may change its mind.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from gateway import worker
from gateway.backends.onnx import artifacts, loading, model, runner

CRASHES = "GATEWAY_TEST_CRASHES"


def crash_if_due(how: str, digest: str) -> None:
    """Read the address 0, as a kernel with a wrong pointer does."""
    if f"{how} {digest}" in Path(os.environ[CRASHES]).read_text().splitlines():
        ctypes.string_at(0)


class Session:
    """A session whose runs for clients may crash; its warm-up has been."""

    def __init__(self, session: Any, digest: str) -> None:
        self._session = session
        self._digest = digest

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, *arguments: Any) -> Any:
        crash_if_due("run", self._digest)
        return self._session.run(*arguments)


class Runner(runner.Runner):
    def __init__(self, session: Any, name: str, *more: Any) -> None:
        super().__init__(Session(session, name), name, *more)  # a copy is named by its digest


def verified(path: Path, expected: str) -> str:
    crash_if_due("load", expected)
    return artifacts.verified(path, expected)


if __name__ == "__main__":
    setattr(model, "Runner", Runner)  # noqa: B010 - as far as mypy sees
    setattr(loading, "verified", verified)  # noqa: B010
    worker.main()
