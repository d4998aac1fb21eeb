"""The benchmark measures what it says: exact first passages, and goals that need no long run."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import prove, results_file, stats_plan, tables
from benchmarks.results_file import ResultsFile
from benchmarks.stats_common import Measured, coins, draw, first_passage, mean_ratio
from benchmarks.stats_error import g16, shares
from benchmarks.stats_interval import g6
from benchmarks.stats_monitor import alarm, cumulants, first_alarm
from benchmarks.stats_speed import g14
from gateway.stats import AnyBet, LevelDetector, SampleRatio, ScoreCell, harm, superiority


@pytest.mark.parametrize("seed", range(6))
def test_first_passages_are_exact_to_the_unit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bets: dict[str, AnyBet] = {"up": superiority(0.2), "down": harm()}
    z, pi = coins(rng, 0.5, 800)
    g = draw(rng, 0.3 + 0.2 * z)
    threshold = math.log(20.0)
    cell, expected = ScoreCell(bets), None
    for i in range(800):
        cell.fold(z[i : i + 1], pi[i : i + 1], g[i : i + 1])
        if expected is None and max(cell.log_e("up"), cell.log_e("down")) >= threshold:
            expected = i + 1
    assert first_passage(bets, threshold, z, pi, g) == expected
    assert first_passage(bets, 1e9, z, pi, g) is None


def test_alarms_are_exact_to_the_unit() -> None:
    rng = np.random.default_rng(1)
    pi = np.repeat([0.1, 0.5], 200)
    z = rng.random(400) < pi + 0.2
    ratio, expected = SampleRatio(), None
    for i in range(400):
        ratio.add(pi[i], z[i : i + 1])
        if expected is None and ratio.log_e() >= math.log(20.0):
            expected = i + 1
    assert first_alarm(z, cumulants(pi), math.log(20.0), check=pi) == expected


def test_first_passages_with_a_covariate_are_exact_to_the_unit() -> None:
    rng = np.random.default_rng(3)
    bets: dict[str, AnyBet] = {"up": superiority(0.2)}
    x = rng.standard_normal((600, 1))
    z, pi = coins(rng, 0.5, 600)
    g = np.clip(0.4 + 0.1 * x[:, 0] + 0.1 * z, 0.0, 1.0)
    cell, expected = ScoreCell(bets, covariates=1), 0
    while cell.log_e("up") < math.log(20.0):
        cut = slice(expected, expected + 1)
        cell.fold(z[cut], pi[cut], g[cut], x[cut])
        expected += 1
    assert first_passage(bets, math.log(20.0), z, pi, g, x) == expected


@pytest.mark.parametrize("peak", ["peak_log_sr", "peak_log_cusum"])
def test_alarms_of_detectors_are_exact_to_the_unit(peak: str) -> None:
    x = (np.random.default_rng(2).random(2000) < 0.05).astype(np.float64)
    detector, expected = LevelDetector(0.01), 0
    while getattr(detector.detector, peak) < math.log(1000.0):
        detector.fold(x[expected : expected + 1])
        expected += 1
    assert alarm(x, math.log(1000.0), peak) == expected
    assert alarm(x, 1e9, peak) is None


def test_a_bandit_sees_only_what_is_past_and_every_run_by_itself() -> None:
    rng = np.random.default_rng(1)
    g = np.stack([np.full(5000, 0.5), draw(rng, np.full(5000, 0.2))])
    z, pi = shares("bandit", np.random.default_rng(2), g)
    g[:, 2500:] = 1.0 - g[:, 2500:]
    _, other = shares("bandit", np.random.default_rng(2), g)
    assert (pi[:, :2550] == other[:, :2550]).all()
    assert (pi[1, 2550:] != other[1, 2550:]).any()
    assert pi.min() >= 0.05
    assert pi.max() <= 0.95
    assert abs(float((z - pi).mean())) < 0.02


def test_a_standard_error_of_a_ratio_is_that_of_repeated_samples() -> None:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(400):
        others = rng.exponential(1.0, 500)
        found.append(mean_ratio(0.5 * others + rng.exponential(0.5, 500), others))
    ratios, errors = np.array(found).T
    assert float(ratios.mean()) == pytest.approx(1.0, abs=0.01)
    assert float(errors.mean()) == pytest.approx(float(ratios.std()), rel=0.15)


def test_the_width_goal_measures_what_the_cells_say() -> None:
    assert all(measured.passed for measured in g6(20, np.random.default_rng(1)))


def test_every_case_of_the_proof_has_a_goal_and_a_number_of_runs() -> None:
    assert {stats_plan.goal_of(key) for key in stats_plan.CASES} == set(stats_plan.GOALS)
    for key in stats_plan.CASES:
        assert key in stats_plan.RUNS or stats_plan.goal_of(key) in stats_plan.RUNS
    for name in stats_plan.RUNS:
        assert any(name in (key, stats_plan.goal_of(key)) for key in stats_plan.CASES)
    assert sum(key.startswith("G1/") for key in stats_plan.CASES) == 35


def test_a_case_gives_the_same_numbers_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stats_plan.RUNS, "G1", 60)
    first, second = (stats_plan.measure("G1/binary .5/bandit") for _ in range(2))
    assert [{**one, "seconds": 0} for one in first] == [{**one, "seconds": 0} for one in second]
    assert first[0]["runs"] == 60


def test_a_proof_goes_on_where_it_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (tables, results_file):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    cases = {"A": None, "B": None, "G13": None}
    monkeypatch.setattr(stats_plan, "CASES", cases)
    asked: list[str] = []

    def measure(key: str) -> list[dict[str, Any]]:
        asked.append(key)
        if asked == ["A", "B"]:
            raise KeyboardInterrupt
        return [{"value": key}]

    monkeypatch.setattr(stats_plan, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        prove.prove_statistics(1)
    stored = json.loads((tmp_path / "statistics.json").read_text())
    assert stored["cases"] == {"A": [{"value": "A"}]}
    assert stored["machine"]["cores"] >= 1
    assert len(stored["code"]["sha256"]) == 64
    prove.prove_statistics(1, skip=("G13",))
    prove.prove_statistics(1)
    assert asked == ["A", "B", "B", "G13"]
    assert list(json.loads((tmp_path / "statistics.json").read_text())["cases"]) == ["A", "B", "G13"]


def test_figures_of_other_code_are_dropped_those_of_the_same_code_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results_file, "RESULTS", tmp_path)
    monkeypatch.setattr(results_file, "ROOT", tmp_path)
    monkeypatch.setattr(results_file, "revision", lambda: "one")
    (tmp_path / "a.py").write_text("1")
    ResultsFile[dict[str, int]]("some", code=("*.py",)).run(["x"], lambda key: {"n": 1}, lambda line: None)
    monkeypatch.setattr(results_file, "revision", lambda: "two")
    same, other = (ResultsFile[dict[str, int]]("some", code=("*.py",)) for _ in range(2))
    same.load()
    (tmp_path / "a.py").write_text("2")
    other.load()
    assert (same.cases, other.cases) == ({"x": {"n": 1}}, {})


def test_a_proof_can_use_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_file, "RESULTS", tmp_path)
    results = ResultsFile[dict[str, int]]("some")
    results.run(["1", "22"], _length, lambda line: None, jobs=2)
    assert results.cases == {"1": {"n": 1}, "22": {"n": 2}}


def _length(key: str) -> dict[str, int]:
    return {"n": len(key)}


def test_goals_without_chance_hold() -> None:
    for measured in (*g14(80, np.random.default_rng(1)), *g16(20, np.random.default_rng(1))):
        assert measured.passed, measured


def test_a_limit_is_an_upper_or_a_lower_one() -> None:
    assert Measured("G", "", 1.0, 2.0, 1).passed
    assert not Measured("G", "", 1.0, 2.0, 1, at_least=True).passed
    assert Measured("G", "", 1.0, 2.0, 1).record()["pass"] is True
