"""The demo over real HTTP: each story ends as told, also when the control process is killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from gateway.demo.runner import tell
from tests.integration.process.node import children

pytestmark = pytest.mark.process
ROOT = Path(__file__).parents[3]
EXPECTED = {"better": "promote", "harmful": "rollback", "same": "inconclusive", "crashing": "rollback"}


def _told(*arguments: str, cwd: Path = ROOT, **environment: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "demo", "--json", *arguments],
        capture_output=True,
        text=True,
        timeout=110,
        cwd=cwd,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("scenario", EXPECTED)
def test_each_story_ends_as_told(scenario: str, seed: int) -> None:
    events = _told("--scenario", scenario, "--seed", str(seed))
    result = events[-1]
    assert result["event"] == "result"
    assert result["decision"] == EXPECTED[scenario]
    assert result["failed_requests"] == 0
    assert result["seconds"] < 90
    if result["decision"] == "promote":
        assert result["champion"] != "logistic"
        assert result["split"] == {result["champion"]: 1.0}
    else:
        assert result["champion"] == "logistic"
        assert result["split"] == {"logistic": 1.0}
    if scenario in ("harmful", "crashing"):
        assert result["stage"] in ("traffic-1%", "traffic-10%")
        assert result["harmed_share"] < 0.11


@pytest.mark.anyio
async def test_the_decision_still_comes_when_the_control_process_is_killed() -> None:
    killed = 0
    result: dict[str, Any] = {}
    supervisor = 0
    async for event in tell("better", 1):
        if event["event"] == "start":
            supervisor = int(event["pid"])
        elif event["event"] == "progress" and event["sent"] in (800, 4400):
            (control,) = children(supervisor, "gateway.control")
            os.kill(control, signal.SIGKILL)
            killed += 1
        result = event
    assert killed == 2
    assert (result["decision"], result["failed_requests"]) == ("promote", 0)


def test_the_wheel_brings_its_own_models_config_and_flights(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 5 << 20
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    events = _told("--scenario", "crashing", cwd=tmp_path, PYTHONPATH=str(site))
    assert events[-1]["decision"] == "rollback"
    origin = subprocess.run(
        [sys.executable, "-c", "import gateway.demo.scenarios as s; print(s.assets())"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(origin.stdout.strip()) == site / "gateway" / "demo" / "assets"
