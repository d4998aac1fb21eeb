"""A store that contradicts itself is found out, a line for each contradiction; a sound one is left in peace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from gateway.audit.finding import Finding
from gateway.audit.verify import head, verify
from gateway.errors import StoreError
from gateway.store.sqlite import SqliteStore
from tests.unit.audit.story import PLAIN, live, said
from tests.unit.evidence.world import World
from tests.unit.release.rig import Rig, Rigs

Worlds = Callable[..., World]
TAMPERED = [
    ("DELETE FROM assignment WHERE decision = (SELECT decision FROM vote WHERE ordinal = 9)",
     "votes: 1 have no assignment, the first is 9 (experiment exp)"),
    ("UPDATE vote SET stage = 'elsewhere' WHERE ordinal IN (4, 7)",
     "votes: 2 are not as they were assigned, the first is 4 (experiment exp)"),
    ("UPDATE vote SET at = at + 1 WHERE ordinal = 5",
     "votes: 1 are not as they were assigned, the first is 5 (experiment exp)"),
    ("DELETE FROM unit WHERE decision = (SELECT decision FROM vote WHERE ordinal = 3)",
     "votes: 1 are of units that the store does not know, the first is 3 (experiment exp)"),
    ("UPDATE vote SET decision = (SELECT decision FROM vote WHERE ordinal = 6) WHERE ordinal = 8",
     "votes: 2 share their decision with another vote, the first is 6 (experiment exp)"),
    ("DELETE FROM vote WHERE ordinal = 1", "votes: their numbers have gaps (experiment exp): expected 1 to "),
    ("INSERT INTO settled VALUES ('exp', 10000, 'brier', 0.5, NULL, '')", "votes: 1 settled values belong to no vote"),
    ("INSERT INTO erased SELECT decision, 1 FROM vote WHERE ordinal = 2", "erasure: "),
    ("DELETE FROM cursor WHERE metric = 'errors'; INSERT INTO cursor VALUES ('exp', 'errors', 100000)",
     "cursor: beyond the last vote (experiment exp, metric errors): expected <= "),
    ("UPDATE cursor SET ordinal = 3 WHERE metric = 'errors'",
     "cursor: not what the steps say (experiment exp, metric errors): expected "),
    ("UPDATE fold_step SET watermark = 5 WHERE step = 4", "step: the watermark falls (step 4): expected >= "),
    ("DELETE FROM fold_step WHERE step = 5", "step: the next one is missing (step 4): expected 5, found 6"),
    ("UPDATE fold_step SET cursors = '{\"exp\": {\"errors\": 1}}' WHERE step = (SELECT max(step) FROM fold_step)",
     "cursor: the cursor of errors falls (step "),
    ("UPDATE fold_step SET positions = 'nonsense' WHERE step = 2", "step: its positions cannot be read: "),
    ("UPDATE stream SET segment = 0, offset = 1", "stream: stream 1.outcomes is behind what step "),
    ("UPDATE admission SET decision = decision - 30", "stream: of spool 1 a vote is ahead of what was admitted: "),
    ("DELETE FROM plan WHERE revision = 2", "plan: 2 drew assignments of rank and is not there"),
    ("UPDATE plan SET slots = '{\"rank\": [[0, \"a\"]]}' WHERE revision = 1", "plan: plan 1 gives b nothing at rank"),
    ("UPDATE plan SET as_of = 100000 WHERE revision = 1", "plan: plan 1 rests on a step that is not written down"),
    ("UPDATE evidence SET state = x'00' WHERE key = 'coins/1'", "evidence: cannot be read: "),
    ("DELETE FROM evidence WHERE key = 'coins/1'", "coins: b (experiment exp): expected "),
    ("INSERT INTO release VALUES ('rank', 1, 'nonsense')", "release: the state of rank cannot be read: "),
    ("PRAGMA foreign_keys = OFF; DELETE FROM draw WHERE id = 1", "integrity: assignment: row "),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "line"), TAMPERED, ids=[line.split("(")[0].strip() for _, line in TAMPERED])
def test_what_was_changed_is_said(worlds: Worlds, sql: str, line: str) -> None:
    world = live(worlds(define=PLAIN), 1)
    assert said(world) == []
    for statement in sql.split(";"):
        world.store.write(statement)
    lines = said(world)
    assert any(found.startswith(line) for found in lines), lines
    assert all("\n" not in found for found in lines)


def test_folded_units_are_counted_against_the_votes(worlds: Worlds) -> None:
    world = live(worlds(), 1)
    tally = msgspec.msgpack.decode(world.states["tally"])
    stage, arm, number = tally["matured"][0]
    tally["matured"][0] = [stage, arm, number + 1]
    state = msgspec.msgpack.encode(tally)
    world.store.write("UPDATE evidence SET state = ? WHERE key = 'tally'", (state,))
    assert said(world) == [
        f"tally: folded units of a in {stage} (experiment exp): expected {number}, found {number + 1}"
    ]


def test_a_ledger_that_was_changed(rigs: Rigs) -> None:
    rig: Rig = rigs()
    rig.control.command("rank", "hold", "ada", "wait")
    rig.control.command("rank", "resume", "ada", "go on")
    assert list(verify(rig.sqlite)) == []
    number, digest = head(rig.sqlite)
    assert (number, digest) == (3, rig.sqlite.ledger()[-1].hash)
    rig.sqlite.write("UPDATE ledger SET body = replace(body, 'ada', 'eve') WHERE id = 2")
    assert [str(found) for found in verify(rig.sqlite)] == ["ledger: row 2 does not follow from the rows before"]
    rig.sqlite.write("UPDATE ledger SET step = 77 WHERE id = 3")
    assert "ledger: 1 rows rest on steps that are not written down, the first is 3 (step 77, experiment one)" in [
        str(found) for found in verify(rig.sqlite)
    ]


def test_a_file_that_the_disk_has_spoilt(worlds: Worlds, tmp_path: Path) -> None:
    world = live(worlds(), 1)
    world.store.write("PRAGMA wal_checkpoint(TRUNCATE)")
    [(page,)] = world.store.rows("SELECT rootpage FROM sqlite_master WHERE name = 'completion'")
    path = tmp_path / "spoilt.db"
    data = bytearray((world.folder / "gateway.db").read_bytes())
    data[(page - 1) * 4096 + 8 : page * 4096] = b"\xff" * 4088
    path.write_bytes(data)
    store = SqliteStore(path, read_only=True)
    found: list[Finding] = []
    with pytest.raises(StoreError), store.transaction():  # which no longer trusts the file
        found += verify(store)
    store.close()
    assert len(found) > 1
    assert {finding.what for finding in found} == {"integrity"}
    assert found[-1].text.startswith("the rest cannot be read: ")
