"""`gateway plan` and `gateway simulate` as they are typed: what is printed, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.store.open import open_store
from tests.postgres import fresh_database, migrated, postgres
from tests.unit.forecast.logs import logged
from tests.unit.forecast.subjects import CONFIG, written

__all__ = ["fresh_database", "migrated", "postgres"]

SECRETS = 'keys: {signing: ["${SIGNING}"], pepper: "${PEPPER}"}'  # which a shared store needs


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_plan_prints_a_page_and_writes_the_plot(tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    done = run("plan", written(tmp_path), "--traffic", "12k/day", "--baseline", 0.3, "--plot", plot)
    assert done.exit_code == 0, done.output
    assert "until promotion" in done.output
    assert "guessed" in done.output
    assert ElementTree.parse(plot).getroot().tag.endswith("svg")


def test_plan_as_json(tmp_path: Path) -> None:
    done = run("plan", written(tmp_path), "--traffic", "500/h", "--baseline", 0.3, "--sd", 0.2, "--json")
    document = json.loads(done.output)
    assert document["traffic"] == 12_000.0
    assert [stage["name"] for stage in document["stages"]] == ["traffic-10%", "traffic-50%"]
    assert set(document["detectable"]) == {"1", "3", "7", "14", "30"}
    assert {limit["name"] for limit in document["limits"]} >= {"false_promotion", "false_rollback"}
    assert set(document["guardrails"]) == {"errors", "latency"}


def test_simulate_prints_rows_and_checks(tmp_path: Path) -> None:
    done = run("simulate", written(tmp_path), "--baseline", 0.3, "--runs", 3, "--effect", 0.1, "--units", 3000)
    assert done.exit_code == 0, done.output
    assert "+0.1" in done.output
    assert "compatible with its limit" in done.output


def test_simulate_as_json_has_a_row_for_each_effect(tmp_path: Path) -> None:
    options = ("--baseline", 0.3, "--runs", 2, "--ramp", "5%,40%", "--look-every", 50, "--traffic", "12000/day")
    done = run("simulate", written(tmp_path), *options, "--json")
    document = json.loads(done.output)
    assert [row["effect"] for row in document["rows"]] == [0.0, 0.1, -0.1]
    assert document["stages"] == {"traffic-5%": 0.05, "traffic-40%": 0.4}
    assert document["look_every"] == {"traffic-5%": 50, "traffic-40%": 50}
    row = document["rows"][1]
    assert {"promoted", "rolled_back", "inconclusive", "units", "days", "challenger_share", "checks"} <= set(row)
    assert len(row["units"]) == 5
    assert run("simulate", written(tmp_path), *options, "--json").exit_code == 0


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_simulate_from_the_configs_own_store(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engine: str
) -> None:
    monkeypatch.setenv("SIGNING", "5" * 64)
    monkeypatch.setenv("PEPPER", "7" * 64)
    if engine == "sqlite":
        store = f"sqlite:///{logged(tmp_path, 600)}"
    else:
        store = request.getfixturevalue("fresh_database")
        logged(tmp_path, 600, store=open_store(store))
    path = written(tmp_path, CONFIG.replace("version: 1", f"version: 1\nstore: {store}\n{SECRETS}"))
    done = run("simulate", path, "--from-log", "--runs", 5, "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.output)
    assert (document["source"], document["log_units"], len(document["rows"])) == ("exp", 300, 1)


def test_a_log_that_is_not_there_fails(tmp_path: Path) -> None:
    done = run("simulate", written(tmp_path), "--from-log")
    assert done.exit_code == 1
    assert "there is no store yet" in done.output


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "--traffic", "5days", "--baseline", 0.3),
        ("plan", "--traffic", "5/s", "--baseline", 7),
        ("plan", "--traffic", "5/s", "--baseline", 0.3, "--endpoint", "nowhere"),
        ("plan", "--traffic", "5/s", "--baseline", 0.3, "--base", "errors"),
        ("plan", "--traffic", "5/s"),
        ("simulate", "--ramp", "50%,10%"),
        ("simulate", "--ramp", "ten"),
        ("simulate", "--effect", 0.9, "--baseline", 0.3),
        ("simulate", "--worse", "nothing=1"),
        ("simulate", "--experiment", "exp"),
        ("simulate", "--from-log", "--drift", 0.1),
        ("simulate", "--runs", 0),
    ],
)
def test_what_makes_no_sense_is_wrong_usage(tmp_path: Path, words: tuple[object, ...]) -> None:
    verb, *rest = words
    done = run(verb, written(tmp_path), *rest)
    assert done.exit_code == 2, done.output
    assert "Error" in done.output


@pytest.mark.parametrize("verb", ["plan", "simulate"])
def test_a_refused_config_is_told_as_everywhere(tmp_path: Path, verb: str) -> None:
    path = written(tmp_path, CONFIG.replace("direction: decrease", "direction: down"))
    options = ("--traffic", "5/s", "--baseline", 0.3)
    done = run(verb, path, *options)
    assert done.exit_code == 78
    assert "gateway.yaml:" in done.output
    assert json.loads(run(verb, path, *options, "--json").output)["ok"] is False
