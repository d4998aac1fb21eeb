"""What is measured of facts on their way into the store, and the table that is made of it."""

from __future__ import annotations

import pytest

from benchmarks import bench_ingest, ingest_control
from benchmarks.bench_tables import ingest_table


def test_shipping_is_split_into_what_it_consists_of() -> None:
    figures = ingest_control.shipped(2)
    parts = [figures[f"us_{stage}"] for stage in ("read", "record", "commit")]
    assert all(part > 0.0 for part in parts)
    assert figures["facts_per_s"] == pytest.approx(1e6 / sum(parts))


def test_a_store_grows_until_it_is_as_large_as_it_is_measured() -> None:
    found = list(ingest_control.growth((300, 3000), 1))
    assert [one.facts for one in found] == [300, 3000]
    assert all(0.0 < one.cpu_us <= 1.5 * one.wall_us for one in found)


def test_growth_is_the_last_size_over_the_first() -> None:
    figures = bench_ingest.grown((300, 3000))
    assert figures["growth"] == pytest.approx(figures["us_3000"] / figures["us_300"])


def test_the_table_has_what_was_measured_and_nothing_else() -> None:
    spread = {"median": 10.0, "low": 9.0, "high": 11.0}
    summary = {"growth": {"us_300": spread, "us_wall_300": spread}, "users return": {"us": spread, "us_wall": spread}}
    lines = ingest_table(summary).splitlines()
    assert "| 300 | 10 (9-11) | 10 |" in lines
    assert "| users return | 10 (9-11) | 10 |" in lines
    assert not any("PostgreSQL" in line for line in lines)
