"""`gateway check`: what is wrong with a config, and what its models weigh."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.backends.onnx import digest
from gateway.cli.check import check
from tests.unit.backends import tiny_onnx

CONFIG = """
version: 1
data: {workers: 3}
endpoints:
  rank:
    protocol: oip
    unit: {from: "header:x-user-id", otherwise: request}
    variants:
      a: {role: champion, onnx: a.onnx}
      b: {role: challenger, onnx: b.onnx}
    traffic: {a: 90%, b: 10%}
"""
HEAVY = 32 << 20


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text(CONFIG)
    tiny_onnx.largest(tmp_path / "a.onnx")
    tiny_onnx.heavy(tmp_path / "b.onnx", HEAVY)
    return path


def checked(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(check, arguments)
    return result.exit_code, result.output


def test_as_many_workers_as_there_are_cpus_to_use_unless_somebody_says_how_many(config: Path) -> None:
    config.write_text(CONFIG.replace("data: {workers: 3}\n", ""))
    _, output = checked(str(config), "--json")
    assert json.loads(output)["workers"] == len(os.sched_getaffinity(0))


def test_each_model_is_weighed_once_for_every_worker(config: Path) -> None:
    code, output = checked(str(config), "--json")
    report: dict[str, Any] = json.loads(output)
    assert code == 0
    assert report["workers"] == 3
    light, heavy = report["models"]
    assert heavy | {"resident_bytes": 0} == {
        "endpoint": "rank",
        "variant": "b",
        "file": str(config.with_name("b.onnx")),
        "sha256": digest(config.with_name("b.onnx")),
        "size_bytes": config.with_name("b.onnx").stat().st_size,
        "resident_bytes": 0,
    }
    assert HEAVY <= heavy["resident_bytes"] < 3 * HEAVY
    assert light["resident_bytes"] < HEAVY / 2


def test_a_person_reads_files_digests_sizes_and_the_sum(config: Path) -> None:
    code, output = checked(str(config))
    first, light, heavy, total, *_ = output.splitlines()
    assert code == 0
    assert first.startswith(f"{config}: ok; endpoints: rank; digest ")
    assert light.startswith("rank/a  ")
    assert f"sha256 {digest(config.with_name('b.onnx'))[:12]}  32.0 MiB on disk  " in heavy
    assert total.startswith("models in memory: ")
    assert total.endswith(" MiB with 3")


def test_what_disk_it_takes_depends_on_the_traffic(config: Path) -> None:
    code, output = checked(str(config), "--rate", "1000", "--json")
    assert code == 0
    disk = json.loads(output)["disk"]
    # Two facts each, of 107 bytes together, kept for seven days and the one that begins; no votes without experiment.
    assert disk["facts_bytes_a_day"] == 107 * 1000 * 86_400
    assert disk["facts_bytes_at_most"] == 8 * disk["facts_bytes_a_day"]
    assert disk["votes_bytes_a_day"] == 200 * 10 * 86_400
    assert disk["spool_bytes"] == 8 << 30  # they have a bound
    _, output = checked(str(config))
    assert "disk at 100 requests/s, a day: 1.1 GB in the store; spools 1.7 GB in all" in output
    assert "which go after 7d: 7.4 GB at most" in output


def test_models_that_do_not_fit_are_refused_at_their_line(config: Path) -> None:
    tiny_onnx.largest(config.with_name("b.onnx"), features=3)
    code, output = checked(str(config))
    assert code == 78
    assert "gateway.yaml:10: endpoints.rank.variants.b.onnx: is (features: FP32[-1, 3])" in output


def test_a_broken_model_is_refused_at_its_line(config: Path) -> None:
    config.with_name("b.onnx").write_text("no model")
    code, output = checked(str(config))
    assert code == 78
    assert "gateway.yaml:10: endpoints.rank.variants.b.onnx: " in output
    assert "b.onnx: cannot be loaded" in output
