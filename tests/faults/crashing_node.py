"""`gateway` with workers of `crashing_worker`."""

from __future__ import annotations

from gateway.children import Spawn
from gateway.cli import main
from gateway.supervisor import Supervisor

WORKER = "tests.faults.crashing_worker"
_worker = Supervisor._worker


def crashing(supervisor: Supervisor) -> Spawn:
    return _worker(supervisor)._replace(module=WORKER)


if __name__ == "__main__":
    setattr(Supervisor, "_worker", crashing)  # noqa: B010 - as far as mypy sees
    main()
