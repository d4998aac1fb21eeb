"""`gateway` whose workers have a disk that fails now and then (`faulty_worker`)."""

from __future__ import annotations

from gateway.cli import main
from gateway.supervision.children import Spawn
from gateway.supervisor import Supervisor

WORKER = "benchmarks.faulty_worker"
_worker = Supervisor._worker


def worker(supervisor: Supervisor) -> Spawn:
    return _worker(supervisor)._replace(module=WORKER)


if __name__ == "__main__":
    setattr(Supervisor, "_worker", worker)  # noqa: B010 - as far as mypy sees
    main()
