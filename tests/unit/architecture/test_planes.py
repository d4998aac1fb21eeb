"""What a process has loaded is what it can use: the planes apart, seen in real interpreters."""

from __future__ import annotations

import subprocess
import sys

import pytest

DATABASES = ("sqlite3", "psycopg")
CONTROL_ONLY = ("scipy", "pydantic", "starlette", "httpx", "prometheus_client", "ruamel", "rich", *DATABASES)


def _loaded_by(module: str, names: tuple[str, ...]) -> set[str]:
    code = f"import sys, {module}; print(*[name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_a_worker_loads_no_database_and_nothing_of_the_control_plane() -> None:
    ours = ("gateway.config", "gateway.release", "gateway.evidence", "gateway.stats", "gateway.store", "gateway.admin")
    assert _loaded_by("gateway.worker", CONTROL_ONLY + ours) == set()


def test_the_control_process_loads_nothing_that_answers_traffic() -> None:
    ours = ("gateway.serving", "gateway.backends.http", "gateway.backends.pool", "gateway.worker", "uvloop", "httpx")
    assert _loaded_by("gateway.control", ours) == set()


def test_the_supervisor_is_thin() -> None:
    heavy = ("numpy", "scipy", "onnxruntime", "pydantic", "uvicorn", "gateway.worker", "gateway.control")
    assert _loaded_by("gateway.supervisor", heavy) == set()


@pytest.mark.parametrize("module", ["gateway.worker", "gateway.control"])
def test_each_process_has_what_it_is_for(module: str) -> None:
    assert _loaded_by(module, ("onnxruntime", "uvicorn", "msgspec")) == {"onnxruntime", "uvicorn", "msgspec"}
