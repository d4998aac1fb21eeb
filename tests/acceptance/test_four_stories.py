"""The four stories of the demo under a fake clock: real workers, real control plane, recorded flights."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.driver import play, run_scenario

SEEDS = range(1, 6)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_better_challenger_is_promoted(seed: int) -> None:
    result = run_scenario("better", seed)
    assert (result["decision"], result["reason"]) == ("promote", "better")
    assert result["champion"] == "boosted"
    assert result["split"] == {"boosted": 1.0}
    assert result["stage"] == "traffic-50%"
    assert result["failed_requests"] == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_harmful_challenger_is_rolled_back_early(seed: int) -> None:
    result = run_scenario("harmful", seed)
    assert result["decision"] == "rollback"
    assert result["stage"] in ("traffic-1%", "traffic-10%")
    assert result["split"] == {"logistic": 1.0}
    assert result["harmed_share"] <= 0.1
    assert result["failed_requests"] == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_challenger_that_is_no_better_ends_without_a_decision_for_it(seed: int) -> None:
    result = run_scenario("same", seed)
    assert result["decision"] == "inconclusive"
    assert result["reason"] in ("futility", "max_units")
    assert result["champion"] == "logistic"
    assert result["split"] == {"logistic": 1.0}
    assert result["failed_requests"] == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_crashing_challenger_is_rolled_back_and_no_client_notices(seed: int) -> None:
    result = run_scenario("crashing", seed)
    assert result["decision"] == "rollback"
    assert result["reason"] in ("kill_rule", "harm_errors", "harm_latency")
    assert result["stage"] == "traffic-1%"
    assert result["challenger_units"] <= 20
    assert result["split"] == {"logistic": 1.0}
    assert result["failed_requests"] == 0


@pytest.mark.parametrize("scenario", ["better", "harmful"])
def test_a_control_process_that_dies_after_every_block_decides_the_same(scenario: str, tmp_path: Path) -> None:
    def told(name: str, **how: Any) -> dict[str, Any]:
        folder = tmp_path / name
        folder.mkdir()
        result = asyncio.run(play(scenario, 1, folder, **how))
        return {key: value for key, value in result.items() if key != "seconds"}

    calm, killed = told("calm"), told("killed", kill_after=1)
    assert killed == calm
    assert calm["evidence"]


def test_the_number_of_workers_changes_no_ending(tmp_path: Path) -> None:
    endings = []
    for workers in (1, 3):
        folder = tmp_path / str(workers)
        folder.mkdir()
        result = asyncio.run(play("harmful", 2, folder, workers=workers))
        endings.append({key: value for key, value in result.items() if key != "seconds"})
    assert endings[0] == endings[1]
