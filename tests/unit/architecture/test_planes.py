"""What a process has loaded is what it can use: the planes apart, seen in real interpreters."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

DATABASES = ("sqlite3", "psycopg")
CONTROL_ONLY = ("scipy", "pydantic", "starlette", "httpx", "prometheus_client", "ruamel", "rich", *DATABASES)
COMMAND_LINE = {"audit", "cli", "demo", "export", "forecast"}  # nothing that runs as a service needs these
FLOOR = {
    "clock",
    "descriptors",
    "ends",
    "errors",
    "events",
    "files",
    "memory",
    "plan",
    "timer",
}  # have contracts, or no imports
ROOT = Path(__file__).parents[3]


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


@pytest.mark.parametrize("module", ["gateway.supervisor", "gateway.worker", "gateway.control"])
def test_what_runs_loads_nothing_that_only_the_command_line_needs(module: str) -> None:
    apart = (*(f"gateway.{name}" for name in sorted(COMMAND_LINE)), "gateway.forgetting.volume")
    assert _loaded_by(module, apart) == set()


def test_every_room_of_what_runs_is_under_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [contract] = [one for one in contracts if one["name"].startswith("What runs knows of nothing that only")]
    rooms = {
        path.stem
        for path in (ROOT / "gateway").glob("[a-z]*")
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert set(contract["forbidden_modules"]) == {f"gateway.{name}" for name in COMMAND_LINE}
    assert set(contract["source_modules"]) == {f"gateway.{name}" for name in rooms - COMMAND_LINE - FLOOR}
