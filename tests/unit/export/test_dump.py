"""An export has everything of its moment, once, and is whole or not there."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from gateway import files
from gateway.clock import FakeClock
from gateway.errors import StoreError
from gateway.events import FORCED
from gateway.export.catalog import TABLES
from gateway.export.columns import Kind
from gateway.export.dump import ExportError, Wanted, chosen, export
from gateway.export.facts import CHUNK, Selection
from gateway.export.manifest import Manifest
from gateway.export.moment import Moment, moment
from gateway.export.source import OpenStore
from gateway.export.writers import MissingExtra, iso
from gateway.store.keeping import DAY_US
from tests.unit.evidence.world import THRESHOLDS
from tests.unit.export.logs import BEGAN, Logged, live_one_unit

EVER = (1 << 63) - 1


def written(
    log: Logged,
    folder: Path,
    *,
    what: tuple[str, ...] = tuple(TABLES),
    format: str = "csv",
    experiment: str | None = None,
    since: int = 0,
    until: int = EVER,
    now: Moment | None = None,
    store: OpenStore | None = None,
) -> Manifest:
    opened = store or log.look()
    try:
        selected = Selection(experiment, since, until)
        return export(opened, now or moment(opened), Wanted(what, format, selected), folder, FakeClock())
    finally:
        opened.close()


def read(folder: Path, table: str) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    for path in sorted(folder.glob(f"{table}*.csv")):
        with path.open(newline="") as file:
            rows += csv.DictReader(file)
    return rows


HOLDS: dict[Kind, Callable[[Any], bool]] = {
    "integer": lambda value: type(value) is int and not BEGAN <= value <= BEGAN + 2 * DAY_US,
    "number": lambda value: type(value) is float,
    "flag": lambda value: value in (0, 1),
    "time": lambda value: type(value) is int and BEGAN <= value <= BEGAN + 2 * DAY_US,
    "word": lambda value: type(value) is str,
    "text": lambda value: type(value) is str,
    "hash": lambda value: type(value) is bytes,
    "json": lambda value: isinstance(json.loads(value), (dict, list)),
}


def test_every_column_holds_what_its_type_says(sqlite_log: Logged) -> None:
    """Times lie in the story, and no other number does; words are few."""
    store = sqlite_log.world.store
    for _ in range(10):
        sqlite_log.decide("hold")
    store.write("UPDATE outcome SET happened_at = at")
    store.write("UPDATE plan SET at = ?, as_of = revision", (BEGAN,))
    store.write("INSERT INTO counter (experiment, variant, name, node, value) VALUES ('exp', 'b', 'late', 3, 5)")
    store.write("INSERT INTO late_fact (decision, kind, at, body) VALUES (7, 'completion', ?, '[7]')", (BEGAN,))
    with closing(sqlite_log.look()) as opened:
        now = moment(opened)
        for name, table in TABLES.items():
            rows = [row for _, row in table.rows(opened, now, Selection(None, 0, EVER))]
            for column, values in zip(table.columns, zip(*rows, strict=True), strict=True):
                held = [value for value in values if value is not None]
                assert held, (name, column.name)
                assert all(map(HOLDS[column.kind], held)), (name, column.name)
                assert column.kind != "word" or len(set(held)) <= 10, (name, column.name)


def test_exposures_are_the_requests_with_their_completions(log: Logged, tmp_path: Path) -> None:
    written(log, tmp_path / "out", what=("exposures",))
    found = {int(row["decision"]): row for row in read(tmp_path / "out", "exposures")}
    stored = log.rows(
        "SELECT r.decision, r.at, r.experiment, r.variant, r.pi, r.unit, r.flags, c.at, c.served, c.status, c.error,"
        " c.tries, c.prediction FROM request r LEFT JOIN completion c ON c.decision = r.decision"
    )
    assert len(found) == len(stored) == 121
    for decision, at, experiment, variant, pi, unit, flags, done, served, status, error, tries, prediction in stored:
        row = found[decision]
        assert (row["at"], row["experiment"], row["variant"]) == (iso(at), experiment, variant)
        assert (float(row["pi"]), row["unit"]) == (pi, bytes(unit).hex())
        assert row["forced"] == ("true" if flags & FORCED else "false")
        if done is None:
            assert {row[name] for name in ("completed_at", "served", "status", "error", "tries")} == {""}
        else:
            assert (row["completed_at"], row["served"]) == (iso(done), served)
            assert (int(row["status"]), row["error"], int(row["tries"])) == (status, error, tries)
            assert (float(row["prediction"]) if row["prediction"] else None) == prediction
    assert sum(row["completed_at"] == "" for row in found.values()) == 9


def test_segments_have_their_names_and_numbers_where_no_experiment_names_them(log: Logged, tmp_path: Path) -> None:
    written(log, tmp_path / "out", what=("exposures", "votes"))
    exposures = read(tmp_path / "out", "exposures")
    ours = {row["segments"] for row in exposures if row["experiment"] == "exp"}
    assert ours == {'{"origin": "EWR"}', '{"origin": "JFK"}'}
    (fixed,) = (row for row in exposures if row["experiment"] == "")
    assert json.loads(fixed["segments"]) == {"0": "de", "1": "mobile"}
    assert {row["segments"] for row in read(tmp_path / "out", "votes")} == ours


def test_outcomes_are_filed_with_their_exposures_and_orphans_with_neighbours(log: Logged, tmp_path: Path) -> None:
    written(log, tmp_path / "out", what=("outcomes",))
    found = read(tmp_path / "out", "outcomes")
    stored = log.rows("SELECT decision, metric, id, value, at FROM outcome")
    assert Counter((int(r["decision"]), r["metric"], r["id"], float(r["value"]), r["at"]) for r in found) == Counter(
        (decision, metric, id, value, iso(at)) for decision, metric, id, value, at in stored
    )
    assert any("\n" in row["id"] for row in found)
    (orphan,) = (row for row in found if row["id"] == "orphan")
    assert (orphan["assigned_at"], orphan["variant"]) == ("", "")
    assigned = dict(log.rows("SELECT decision, at FROM assignment"))
    known = [row for row in found if row["id"] != "orphan"]
    assert all(row["assigned_at"] == iso(assigned[int(row["decision"])]) for row in known)


def test_votes_shadows_decisions_and_what_the_log_says_of_itself(log: Logged, tmp_path: Path) -> None:
    manifest = written(log, tmp_path / "out")
    counts = {
        name: log.rows(f"SELECT count(*) FROM {stored}")[0][0]
        for name, stored in {
            "exposures": "assignment",
            "outcomes": "outcome",
            "shadows": "shadow",
            "votes": "vote",
            "decisions": "ledger",
            "plans": "plan",
            "steps": "fold_step",
            "experiments": "experiment",
            "late": "late_fact",
        }.items()
    }
    assert manifest.rows == manifest.rows | counts
    for name, number in manifest.rows.items():
        assert len(read(tmp_path / "out", name)) == number, name
    ledger = read(tmp_path / "out", "decisions")
    assert [row["kind"] for row in ledger] == ["start", "advance", "promote"]
    assert ledger[-1]["hash"] == manifest.content["ledger"]["head"] == log.world.store.ledger(1)[0].hash
    assert ledger[-1]["text"] == "it is time to promote"
    votes = read(tmp_path / "out", "votes")
    assert [int(row["ordinal"]) for row in votes] == list(range(1, len(votes) + 1))


def test_results_are_those_of_the_evidence(log: Logged, tmp_path: Path) -> None:
    manifest = written(log, tmp_path / "out", what=("results", "tests", "experiments"))
    report = log.world.report
    results = {(row["metric"], row["segment"]): row for row in read(tmp_path / "out", "results")}
    assert len(results) == len(report.estimates)
    for one in report.estimates:
        row = results[one.metric, one.segment]
        assert (float(row["lower"]), float(row["upper"])) == (one.lower, one.upper)
    tests = read(tmp_path / "out", "tests")
    assert [float(row["log_e"]) for row in tests] == [test.log_e for test in report.tests]
    # The ledger says by which thresholds it was decided.
    assert [float(row["needed"]) for row in tests] == [test.needed for test in report.tests]
    assert manifest.content["thresholds"]["exp"]["alpha"] == THRESHOLDS.alpha
    (experiment,) = read(tmp_path / "out", "experiments")
    assert int(experiment["units"]) == report.units
    assert experiment["verdict"] == report.verdict


def test_a_file_for_each_day_of_the_assignment_in_the_order_of_times(log: Logged, tmp_path: Path) -> None:
    manifest = written(log, tmp_path / "out", what=("exposures", "outcomes", "votes"))
    days = [file["name"] for file in manifest.content["tables"]["exposures"]["files"]]
    assert days == ["exposures-2023-11-14.csv", "exposures-2023-11-15.csv"]
    for name, time in (("exposures", "at"), ("outcomes", "assigned_at"), ("votes", "at")):
        times = [row[time] for row in read(tmp_path / "out", name) if row[time]]
        assert times == sorted(times)
        for day in ("14", "15"):
            rows = read(tmp_path / "out", f"{name}-2023-11-{day}")
            assert rows
            assert {row[time][:10] for row in rows if row[time]} == {f"2023-11-{day}"}


def test_ranges_of_time_part_nothing_and_leave_nothing_out(log: Logged, tmp_path: Path) -> None:
    cut = log.rows("SELECT at FROM assignment ORDER BY at, decision LIMIT 1 OFFSET 50")[0][0]
    what = ("exposures", "outcomes", "shadows", "votes", "decisions")
    whole = written(log, tmp_path / "whole", what=what)
    early = written(log, tmp_path / "early", what=what, until=cut)
    later = written(log, tmp_path / "later", what=what, since=cut)
    for name in what:
        both = read(tmp_path / "early", name) + read(tmp_path / "later", name)
        assert Counter(map(str, both)) == Counter(map(str, read(tmp_path / "whole", name)))
        assert early.rows[name] + later.rows[name] == whole.rows[name]
        assert early.rows[name]
        assert later.rows[name]
    decisions = {row["decision"] for row in read(tmp_path / "early", "exposures")}
    assert len(decisions) == 50
    assert {row["decision"] for row in read(tmp_path / "early", "outcomes")} <= decisions


def test_one_experiment_only(log: Logged, tmp_path: Path) -> None:
    whole, one = written(log, tmp_path / "whole"), written(log, tmp_path / "one", experiment="exp")
    assert one.rows["exposures"] == whole.rows["exposures"] - 1  # of the fixed split
    assert one.rows["outcomes"] == whole.rows["outcomes"] - 1  # of which nobody knows whose it is
    assert {row["experiment"] for row in read(tmp_path / "one", "exposures")} == {"exp"}


def test_what_lies_beyond_the_watermark_is_not_there_yet(logs: Callable[..., Logged], tmp_path: Path) -> None:
    log = logs(units=4)
    world = log.world
    first = world.assign("early", True, shard=0)
    world.pass_time(5.0)  # the last sign of the second worker
    decision = world.assign("late", True, shard=0)
    world.complete(first)
    world.outcome(first, 0.5)
    world.clock.advance(5.0)
    world.shards[0].heartbeat()
    world.step()
    stored = {row[0] for row in log.rows("SELECT decision FROM assignment")}
    assert decision in stored
    assert {row[0] for row in log.rows("SELECT decision FROM completion")} >= {first}
    written(log, tmp_path / "out")
    found = {int(row["decision"]): row for row in read(tmp_path / "out", "exposures")}
    assert decision not in found
    assert found[first]["completed_at"] == ""  # it came later than what is known of everybody
    assert first not in {int(row["decision"]) for row in read(tmp_path / "out", "outcomes")}


def test_a_moment_stays_what_it_is_while_the_gateway_goes_on(log: Logged, tmp_path: Path) -> None:
    store = log.look()
    now = moment(store)
    written(log, tmp_path / "before", now=now)
    import random

    for unit in range(1000, 1010):
        live_one_unit(log.world, unit, random.Random(unit))
    log.world.settle()
    log.decide("rollback")
    written(log, tmp_path / "after", now=now, store=store)
    before, after = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("before", "after")
    )
    assert before == after


def test_the_manifest_says_what_the_files_are(log: Logged, tmp_path: Path) -> None:
    manifest = written(log, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    assert content == manifest.content
    named = set()
    for name, table in content["tables"].items():
        assert table["rows"] == sum(file["rows"] for file in table["files"])
        for file in table["files"]:
            data = (tmp_path / "out" / file["name"]).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (file["bytes"], file["sha256"])
            head = data.decode().split("\r\n")[0].split(",")
            assert head == [column["name"] for column in table["columns"]]
            named.add(file["name"])
        assert [column["type"] for column in table["columns"]] == [column.kind for column in TABLES[name].columns]
    assert {path.name for path in (tmp_path / "out").iterdir()} == named | {"manifest.json"}
    last = log.world.store.last_step()
    assert (content["step"], content["watermark"]) == (last.step, iso(last.watermark))
    assert content["schema"]
    assert content["program"]


def test_an_empty_store_gives_files_with_their_columns(logs: Callable[..., Logged], tmp_path: Path) -> None:
    manifest = written(logs(units=0), tmp_path / "out", until=1)
    assert manifest.rows["exposures"] == 0
    assert (tmp_path / "out" / "exposures.csv").read_text().startswith("decision,at,endpoint")


def test_parquet_says_the_same_as_csv(log: Logged, tmp_path: Path) -> None:
    written(log, tmp_path / "csv")
    written(log, tmp_path / "parquet", format="parquet")
    for name, table in TABLES.items():
        rows: list[dict[str, Any]] = []
        for path in sorted((tmp_path / "parquet").glob(f"{name}*.parquet")):
            found = pyarrow.parquet.read_table(path)
            rows += found.to_pylist()
            types = {field.name: str(field.type) for field in found.schema}
            assert {types[column.name] for column in table.columns if column.kind == "time"} <= {
                "timestamp[us, tz=UTC]"
            }
            assert found.schema.field(0).metadata[b"about"].decode() == table.columns[0].about
        assert [{key: _text(value) for key, value in row.items()} for row in rows] == read(tmp_path / "csv", name)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if hasattr(value, "tzinfo"):
        return str(value.isoformat(timespec="microseconds").replace("+00:00", "Z"))
    return str(value)


def test_more_rows_than_a_chunk_or_a_row_group_holds(
    logs: Callable[..., Logged], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = logs(units=40)
    written(log, tmp_path / "whole")
    monkeypatch.setattr("gateway.export.facts.CHUNK", 3)
    monkeypatch.setattr("gateway.export.records._CHUNK", 2)
    monkeypatch.setattr("gateway.export.ledger._CHUNK", 2)
    monkeypatch.setattr("gateway.export.writers._GROUP", 4)
    written(log, tmp_path / "parts")
    written(log, tmp_path / "parquet", format="parquet")
    for name in TABLES:
        assert read(tmp_path / "parts", name) == read(tmp_path / "whole", name)
        rows = sum(pyarrow.parquet.read_metadata(path).num_rows for path in (tmp_path / "parquet").glob(f"{name}*"))
        assert rows == len(read(tmp_path / "whole", name))
    assert CHUNK > 3


class Failing:
    """A store whose n-th query fails."""

    def __init__(self, store: OpenStore, left: int) -> None:
        self._store = store
        self._left = left

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def rows(self, sql: str, parameters: Any = ()) -> list[Any]:
        self._left -= 1
        if self._left == 0:
            raise StoreError("the disk is gone")
        return self._store.rows(sql, parameters)


def test_an_export_that_fails_leaves_nothing(sqlite_log: Logged, tmp_path: Path) -> None:
    folder = tmp_path / "into"
    folder.mkdir()
    opened = sqlite_log.look()
    now = moment(opened)
    failures = 0
    for left in range(1, 100):
        try:
            written(sqlite_log, folder / "out", now=now, store=Failing(sqlite_log.look(), left))  # type: ignore[arg-type]
        except StoreError:
            failures += 1
            assert list(folder.iterdir()) == []
        else:
            break
    opened.close()
    assert failures > 5
    assert (folder / "out" / "manifest.json").exists()


def test_what_a_killed_export_left_goes_and_what_another_one_writes_stays(sqlite_log: Logged, tmp_path: Path) -> None:
    dead, alive = tmp_path / ".out.00.part", tmp_path / ".out.11.part"
    for folder in (dead, alive):
        folder.mkdir()
        (folder / "exposures-2023-11-14.csv").write_text("decision\r\n1")
    os.close(files.create_locked(dead / "export.lock", b""))
    lock = files.create_locked(alive / "export.lock", b"")
    written(sqlite_log, tmp_path / "out")
    os.close(lock)
    assert not dead.exists()
    assert alive.exists()


def test_a_folder_with_something_in_it_is_left_alone(sqlite_log: Logged, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    written(sqlite_log, tmp_path / "empty")
    with pytest.raises(ExportError, match="is there already"):
        written(sqlite_log, tmp_path / "empty")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ExportError, match="is there already"):
        written(sqlite_log, tmp_path / "file")
    with pytest.raises(ExportError, match="file: File exists"):
        written(sqlite_log, tmp_path / "file" / "below")


def test_parquet_without_pyarrow_names_the_extra(
    sqlite_log: Logged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"ab-gateway\[parquet\]"):
        written(sqlite_log, tmp_path / "out", format="parquet")
    assert not (tmp_path / "out").exists()


def test_tables_are_chosen_by_name() -> None:
    assert chosen(["votes", "exposures", "votes"]) == ("votes", "exposures")
    assert chosen([]) == tuple(TABLES)
    with pytest.raises(ValueError, match="no table 'vote'; there are exposures, outcomes"):
        chosen(["vote"])
