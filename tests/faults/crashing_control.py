"""A control process that some models bring down when it reads them: see `crashing_worker`; here the word is `read`."""

from __future__ import annotations

from pathlib import Path

from gateway import control
from gateway.backends.onnx import Signature, inspect
from gateway.release import artifacts
from tests.faults.crashing_worker import crash_if_due


def crashing(path: Path) -> Signature:
    crash_if_due("read", path.stem)  # a copy is named by its digest
    return inspect(path)


if __name__ == "__main__":
    setattr(artifacts, "inspect", crashing)  # noqa: B010 - as far as mypy sees
    control.main()
