"""A store of version 1 with a running experiment opens, and the same votes give the same numbers."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.clock import FakeClock
from gateway.evidence.definition import decode
from gateway.evidence.engine import Engine
from gateway.evidence.verdict import judge
from gateway.store.base import KnownUnit, UnitKey
from gateway.store.sqlite import SqliteStore
from tests.unit.evidence.world import THRESHOLDS

OLD = Path(__file__).with_name("version_1.sql")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "spool").mkdir()
    with sqlite3.connect(tmp_path / "gateway.db") as db:
        db.executescript(OLD.read_text())
    db.close()
    return tmp_path / "gateway.db"


def before(path: Path) -> tuple[dict[str, Any], list[Any], int]:
    """Evidence by its old keys, votes, and the last watermark."""
    with sqlite3.connect(path) as db:
        evidence = {key: msgspec.msgpack.decode(state) for key, state in db.execute("SELECT key, state FROM evidence")}
        votes = list(db.execute("SELECT ordinal, at, variant, challenger, pi, segments FROM vote ORDER BY ordinal"))
        (watermark,) = db.execute("SELECT max(watermark) FROM fold_step").fetchone()
    db.close()
    return evidence, votes, watermark


def refolded(path: Path, watermark: int) -> tuple[SqliteStore, Engine]:
    store = SqliteStore(path)
    engine = Engine(path.parent / "spool", store, FakeClock(watermark))
    while engine.step():
        pass
    return store, engine


def test_evidence_folded_anew_says_what_it_said(path: Path) -> None:
    old, votes, watermark = before(path)
    store, engine = refolded(path, watermark)
    new = {key: msgspec.msgpack.decode(state) for key, state in store.evidence("exp").items()}
    cells = [key for key in old if key.startswith("cell/")]
    assert len(cells) == 13
    for key in cells:
        now = new["cell/1/" + key.removeprefix("cell/")]
        assert now["moments"] == old[key]["moments"]
        if key.startswith("cell/brier/") or key.endswith("/"):  # a guardrail's margin holds in segments, too, since
            assert all(now["bets"][name] == wealth for name, wealth in old[key]["bets"].items())
    assert new["coins/1"] == old["ratio/assigned"]
    assert new["ratio/1/brier"] == old["ratio/brier"]
    assert new["tally"]["matured"] == old["tally"]["matured"]
    assert [row for row in new["tally"]["missing"] if row[2]] == [row for row in old["tally"]["missing"] if row[2]]
    report = judge(engine.evidence["exp"], THRESHOLDS, engine.units("exp"), engine.folded("exp"))
    assert (report.units, report.folded, report.assigned) == (56, 44, (37, 19))
    assert len(votes) == 56
    store.close()


def test_votes_and_definitions_are_read_as_they_were_meant(path: Path) -> None:
    _, votes, _ = before(path)
    store = SqliteStore(path)
    rows = store.rows(
        "SELECT ordinal, at, variant, arm, odds, segments, complete, covariates FROM vote ORDER BY ordinal"
    )
    assert rows == [
        (ordinal, at, variant, arm, f"[{1.0 - pi},{pi}]", segments, 1, "[]")
        for ordinal, at, variant, arm, pi, segments in votes
    ]
    ((endpoint, text),) = store.experiments().values()
    definition = decode(text)
    assert (endpoint, definition.arms, definition.digests) == ("rank", ("a", "b"), ("", ""))
    assert "challenger" not in json.loads(text)
    store.close()


def test_every_request_is_what_it_was(path: Path) -> None:
    """`request` became a view, `draw` holds what requests have in common."""
    columns = "decision, at, endpoint, experiment, stage, variant, pi, bucket, unit, segments, revision, flags, step"
    with sqlite3.connect(path) as db:
        requests = list(db.execute(f"SELECT {columns} FROM request ORDER BY decision"))
        exposures = list(db.execute("SELECT * FROM exposure ORDER BY decision"))
    db.close()
    store = SqliteStore(path)
    assert len(requests) > 56
    assert store.rows(f"SELECT {columns} FROM request ORDER BY decision") == requests
    assert store.rows("SELECT * FROM exposure ORDER BY decision") == exposures
    ((draws,),) = store.rows("SELECT count(*) FROM draw")
    assert draws < len(requests) / 4
    store.close()


def test_units_of_before_vote_no_more(path: Path) -> None:
    """Nobody wrote down under which split they were seen."""
    store = SqliteStore(path)
    keys = [UnitKey(e, b % (1 << 64), u) for e, b, u in store.rows("SELECT experiment, bucket, unit FROM unit")]
    assert len(keys) == 56
    assert {(unit.at, unit.known) for unit in store.known_units(keys) if isinstance(unit, KnownUnit)} == {(0, None)}
    assert store.plan_slots(1, "rank") == ()
    store.close()


def test_a_restart_on_the_way_folds_nothing_twice(path: Path) -> None:
    _, _, watermark = before(path)
    store, _ = refolded(path, watermark)
    states = store.evidence("exp")
    store.close()
    store, engine = refolded(path, watermark)
    assert store.evidence("exp") == states
    assert engine.folded("exp") == 44
    store.close()


def test_a_migration_that_fails_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE experiment SET definition = 'broken'")
    db.close()
    with pytest.raises(Exception, match="JSON"):
        SqliteStore(path)
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert db.execute("SELECT count(*) FROM vote WHERE pi > 0").fetchone() == (56,)
    db.close()
