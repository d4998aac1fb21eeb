"""`gateway replay`, `verify` and `erase` as a shell sees them: what they print, and how they end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.cli.main import main
from tests.unit.audit.story import live
from tests.unit.evidence.world import World
from tests.unit.release.configs import experiment, write


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "data")
    made.shard()
    yield live(made, 1)
    made.close()


@pytest.fixture
def database(world: World) -> str:
    return str(world.folder / "gateway.db")


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.stdout, result.stderr


def test_a_store_is_named_by_its_file_its_url_or_a_config(world: World, database: str, tmp_path: Path) -> None:
    config = write(tmp_path, rank=experiment())  # whose data directory is the world's
    votes = world.engine.units("exp")
    for store in (database, f"sqlite:///{database}", str(config)):
        same = f"exp: the same: {votes} votes, 0 reports, 0 decisions of the gateway\n"
        assert run("replay", store) == (0, same, "")
        code, output, _ = run("verify", store)
        assert (code, output) == (0, f"{store}: no findings; ledger of 0 rows, hash none\n")


def test_what_differs_is_named_and_ends_with_1(world: World, database: str) -> None:
    [(before,)] = world.store.rows("SELECT ordinal FROM cursor WHERE metric = 'errors'")
    world.store.write("UPDATE cursor SET ordinal = 3 WHERE metric = 'errors'")
    code, output, _ = run("replay", database)
    assert code == 1
    assert output.startswith(f"exp: differs: {before} votes, ")
    [(steps,)] = world.store.rows("SELECT max(step) FROM fold_step")
    where = f"(step {steps}, experiment exp, metric errors): expected {before}, found 3"
    assert f"  cursor: not what the steps say {where}" in output
    code, output, _ = run("verify", database)
    assert code == 1
    assert output.splitlines()[-1] == f"{database}: 1 finding; ledger of 0 rows, hash none"
    code, output, _ = run("replay", database, "--json")
    report: dict[str, Any] = json.loads(output)
    assert (code, report["same"]) == (1, False)
    assert report["experiments"][0]["findings"][0]["metric"] == "errors"
    code, output, _ = run("verify", database, "--json")
    report = json.loads(output)
    assert (code, report["ok"], report["ledger"]) == (1, False, {"rows": 0, "hash": ""})
    assert report["findings"][0]["found"] == "3"


def test_of_several_experiments_one_may_be_asked_for(world: World, database: str) -> None:
    code, output, _ = run("replay", database, "--experiment", "exp", "--json")
    assert code == 0
    assert [one["experiment"] for one in json.loads(output)["experiments"]] == ["exp"]
    code, _, errors = run("replay", database, "--experiment", "else")
    assert (code, errors) == (2, "gateway: the store knows no experiment else; it knows exp\n")


@pytest.mark.parametrize("verb", ["replay", "verify"])
def test_what_cannot_be_read_ends_with_2(world: World, tmp_path: Path, verb: str) -> None:
    code, _, errors = run(verb, str(tmp_path / "nothing"))
    assert (code, "No such file" in errors) == (2, True)
    code, _, errors = run(verb, f"sqlite:///{tmp_path}/nothing.db")
    assert (code, "there is no store yet" in errors) == (2, True)
    code, _, errors = run(verb, str(world.folder / "spool"))
    assert (code, "what the coins were worth follows from the plans" in errors) == (2, True)


@pytest.mark.parametrize("verb", ["replay", "verify"])
def test_a_config_that_is_refused_ends_with_78(tmp_path: Path, verb: str) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("version: 1\nendpoint: {}\n")
    assert run(verb, str(path))[0] == 78


def test_days_that_have_expired_are_said(world: World, database: str) -> None:
    world.store.write("DELETE FROM assignment")
    world.store.write("INSERT INTO expired SELECT max(at) / 86400000000, 0 FROM vote")
    code, output, _ = run("replay", database)
    assert (code, "all requests have expired: votes were not made again" in output) == (0, True)


def test_nobody_is_erased_where_no_gateway_runs(tmp_path: Path) -> None:
    config = write(tmp_path, rank=experiment())
    code, _, errors = run("erase", "--config", str(config), "--unit", "user-7")
    assert (code, "no gateway has run in" in errors) == (1, True)
    assert run("erase", "--config", str(config), "--unit", "")[0] == 2
