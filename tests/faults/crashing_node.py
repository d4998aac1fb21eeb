"""`gateway` with processes that crash in native code where they are told to."""

from __future__ import annotations

from gateway.cli import main
from gateway.supervision.children import Spawn
from gateway.supervisor import Supervisor

WORKER = "tests.faults.crashing_worker"
CONTROL = "tests.faults.crashing_control"
_worker, _control = Supervisor._worker, Supervisor._control


def worker(supervisor: Supervisor) -> Spawn:
    return _worker(supervisor)._replace(module=WORKER)


def control(supervisor: Supervisor) -> Spawn:
    return _control(supervisor)._replace(module=CONTROL)


if __name__ == "__main__":
    setattr(Supervisor, "_worker", worker)  # noqa: B010 - as far as mypy sees
    setattr(Supervisor, "_control", control)  # noqa: B010
    main()
