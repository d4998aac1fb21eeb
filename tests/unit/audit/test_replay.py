"""Whatever has happened, made once more it is the same; whatever was changed afterwards is found, and named."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from gateway.audit.replay import Replayed
from gateway.evidence import ship
from gateway.evidence.closing import MOST
from gateway.evidence.definition import Definition
from gateway.spool.writer import SpoolWriter
from tests.unit.audit.story import PLAIN, RICH, again, live, said
from tests.unit.evidence.world import World
from tests.unit.release.rig import Rig, Rigs

Worlds = Callable[..., World]


@pytest.mark.parametrize("define", [PLAIN, RICH], ids=["plain", "rich"])
@pytest.mark.parametrize("seed", range(4))
def test_a_world_made_again_is_the_same(worlds: Worlds, define: Definition, seed: int) -> None:
    world = live(worlds(define=define, shards=1 + seed % 3), seed)
    replayed = again(world)
    assert replayed.findings == ()
    assert replayed.votes == replayed.readmitted == world.engine.units("exp") > 50
    assert (replayed.readmitted_from, replayed.unsure) == (1, 0)
    assert said(world) == []


@pytest.mark.parametrize("most", [1, 7, MOST])
def test_however_votes_are_cut_into_batches_they_give_the_same_bytes(worlds: Worlds, most: int) -> None:
    assert again(live(worlds(define=RICH), 1), most).findings == ()


def test_restarts_leave_no_trace(worlds: Worlds) -> None:
    world = worlds(define=RICH, shards=2)
    assert again(live(world, 2, then=world.restart)).findings == ()


def test_what_came_too_late_is_made_again_as_late(worlds: Worlds) -> None:
    world = worlds(shards=2)
    world.whole("early", True, 0.5)
    for second in range(0, ship.MAX_LAG_US // 1_000_000 + 10, 5):  # the other worker hangs, and is given up
        world.clock.advance(5.0)
        world.shards[0].heartbeat()
        world.engine.step()
        world.assign(f"u{second}", second % 2 == 0)
    hanging: SpoolWriter = world.shards[1].requests
    hanging._last_at = world.clock.wall_us() - 60_000_000
    hanging.now = lambda: hanging._last_at  # type: ignore[method-assign]
    world.assign("u5", False, shard=1)  # known already: its coin is spent
    world.assign("late", True, shard=1)
    world.settle()
    assert world.counters["b", "late"] == 1
    assert world.store.late_assignments() != set()
    replayed = again(world)
    assert replayed.findings == ()
    assert replayed.readmitted == replayed.votes


# ---------------------------------------------------------------------- what was changed afterwards


def first(replayed: Replayed) -> str:
    return str(replayed.findings[0])


def test_one_byte_of_the_evidence(worlds: Worlds) -> None:
    world = live(worlds(define=RICH), 1)
    [key] = [key for key in world.states if key == "cell/2/errors/"]
    state = msgspec.msgpack.decode(world.states[key])
    state["moments"]["n1"] += 1
    world.store.write("UPDATE evidence SET state = ? WHERE key = ?", (msgspec.msgpack.encode(state), key))
    replayed = again(world)
    assert len(replayed.findings) == 1
    found = replayed.findings[0]
    assert (found.what, found.challenger, found.metric, found.segment) == ("evidence", "c", "errors", "")
    assert found.text == "cell.moments.n1"
    assert int(found.found) == int(found.expected) + 1
    assert found.step == replayed.steps


def test_a_vote(worlds: Worlds) -> None:
    world = live(worlds(), 1)
    [(ordinal, at)] = world.store.rows("SELECT ordinal, at FROM vote WHERE ordinal > 20 AND arm = 0 LIMIT 1")
    world.store.write("UPDATE vote SET arm = 1, variant = 'b' WHERE ordinal = ?", (ordinal,))
    [(step,)] = world.store.rows("SELECT min(step) FROM fold_step WHERE watermark > ?", (at,))
    replayed = again(world)
    where = f"the variant of vote {ordinal} (step {step}, experiment exp): expected a, found b"
    assert first(replayed) == f"vote: {where}"
    assert any(found.what == "evidence" for found in replayed.findings)
    assert f"votes: 1 are not as they were assigned, the first is {ordinal} (experiment exp)" in said(world)
    assert any(text.startswith("coins: b (experiment exp): expected") for text in said(world))


def test_a_vote_that_is_gone(worlds: Worlds) -> None:
    world = live(worlds(), 1)
    [(decision,)] = world.store.rows("SELECT decision FROM vote WHERE ordinal = 30")
    world.store.write("DELETE FROM vote WHERE ordinal = 30")
    assert again(world).findings[0].text == f"decision {decision} has none"
    assert any("gaps" in text for text in said(world))


def test_a_vote_without_a_request(worlds: Worlds) -> None:
    world = live(worlds(), 1)
    world.store.write("DELETE FROM assignment WHERE decision = (SELECT decision FROM vote WHERE ordinal = 30)")
    assert again(world).findings[0].text == "no assignment makes vote 30"
    assert "votes: 1 have no assignment, the first is 30 (experiment exp)" in said(world)


def test_an_outcome(worlds: Worlds) -> None:
    world = live(worlds(), 1)
    counted = "SELECT v.decision FROM vote v JOIN outcome o ON o.decision = v.decision WHERE o.at < v.at + 60000000"
    world.store.write(f"UPDATE outcome SET value = 1.0 - value WHERE decision = ({counted} LIMIT 1)")
    replayed = again(world)
    assert {found.what for found in replayed.findings} == {"evidence"}
    assert {found.metric for found in replayed.findings} == {"brier"}
    assert said(world) == []  # nothing contradicts anything


def test_a_cursor(worlds: Worlds) -> None:
    world = live(worlds(), 1)
    world.store.write("UPDATE cursor SET ordinal = ordinal - 1 WHERE metric = 'errors'")
    replayed = again(world)
    assert (replayed.findings[0].what, replayed.findings[0].metric) == ("cursor", "errors")
    assert any(text.startswith("cursor: not what the steps say") for text in said(world))


def test_a_step(worlds: Worlds) -> None:
    world = live(worlds(), 1)
    world.store.write("DELETE FROM fold_step WHERE step = 3")
    assert first(again(world)) == "step: the next one is missing (step 2): expected 3, found 4"
    assert "step: the next one is missing (step 2): expected 3, found 4" in said(world)


# ---------------------------------------------------------------------- decisions


@pytest.fixture
def promoted(rigs: Rigs) -> Rig:
    """A release that has gone all the way."""
    rig = rigs()
    for _ in range(2):
        rig.units(60, fair=True)
        rig.units(20)
        rig.tick()
        rig.tick(3600.0)
    rig.units(300, better=0.4)
    rig.tick()
    rig.tick(0.1)
    assert rig.kinds == ["start", "advance", "advance", "promote"]
    return rig


def of(rig: Rig) -> Replayed:
    from gateway.audit.replay import replay

    with rig.sqlite.transaction():
        [replayed] = replay(rig.sqlite)
    return replayed


def test_reports_and_decisions_are_made_again(promoted: Rig) -> None:
    replayed = of(promoted)
    assert (replayed.findings, replayed.reports, replayed.decisions, replayed.unexplained) == ((), 3, 3, 0)


def rewrite(rig: Rig, kind: str, old: str, new: str) -> int:
    """Change the text of the last row of a kind; returns the step that it rests on."""
    rig.sqlite.write(
        "UPDATE ledger SET body = replace(body, ?, ?) WHERE id = (SELECT max(id) FROM ledger WHERE kind = ?)",
        (old, new, kind),
    )
    row = next(row for row in rig.sqlite.ledger() if row.kind == kind)
    return row.step


def test_a_report_in_the_ledger(promoted: Rig) -> None:
    row = promoted.sqlite.ledger()[-1]
    test = row.body["evidence"]["tests"][0]
    rewrite(promoted, "promote", f'"log_e": {test["log_e"]!r}', f'"log_e": {test["log_e"] + 1.0!r}')
    replayed = of(promoted)
    found = replayed.findings[0]
    assert found.what == f"report in row {row.id}"
    assert (found.step, found.challenger, found.metric, found.segment) == (row.step, "b", test["metric"], "")
    assert found.text == f"test.{test['name']}.log_e"
    assert (float(found.expected), float(found.found)) == (test["log_e"], test["log_e"] + 1.0)


def test_what_was_decided(promoted: Rig) -> None:
    row = promoted.sqlite.ledger()[-1]
    rewrite(promoted, "promote", '"reason": "better"', '"reason": "because"')
    assert first(of(promoted)) == (
        f"decision in row {row.id}: its reason does not follow (step {row.step}, experiment one):"
        " expected better, found because"
    )


def test_the_terms_on_which_it_was_decided(promoted: Rig) -> None:
    rewrite(promoted, "promote", '"automation": "full"', '"automation": "ful"')
    assert "its terms does not follow" in first(of(promoted))
    rewrite(promoted, "promote", '"automation": "ful"', '"automation": "full"')
    assert of(promoted).same


def test_a_row_of_an_earlier_version_is_left_alone(promoted: Rig) -> None:
    for row in promoted.sqlite.ledger():
        body = {name: value for name, value in row.body.items() if name != "terms"}
        (body["evidence"] or {}).pop("thresholds", None)
        promoted.sqlite.write("UPDATE ledger SET body = ? WHERE id = ?", (msgspec.json.encode(body).decode(), row.id))
    replayed = of(promoted)
    assert (replayed.findings, replayed.reports, replayed.decisions, replayed.unexplained) == ((), 0, 0, 3)
