"""Every event at least once, those of one kind in their order, from where the consumer was."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.clock import FakeClock
from gateway.errors import StoreUnavailable
from gateway.events import Assignment, decision_id, spool_of
from gateway.export.outbox.feed import OVERDUE_US
from gateway.export.outbox.position import PositionError, held
from gateway.export.outbox.pump import run
from gateway.export.outbox.sinks import SinkError
from gateway.export.writers import iso
from gateway.store.open import open_store
from tests.postgres import PostgresServer
from tests.unit.export.logs import Logged, live_one_unit, make_log
from tests.unit.export.outboxes import Kept, Waits, outbox


def sent(log: Logged, state: Path, sink: Kept | None = None, **how: object) -> Kept:
    sink = sink or Kept()
    with outbox(log, state, sink, **how) as parts:  # type: ignore[arg-type]
        assert run(parts, follow=False) == len(sink.ids)
    return sink


def test_everything_is_sent_once_and_then_nothing(log: Logged, tmp_path: Path) -> None:
    sink = sent(log, tmp_path / "state.json")
    assert len(sink.ids) == len(set(sink.ids))
    for kind, table in (("exposure", "assignment"), ("outcome", "outcome"), ("decision", "ledger")):
        assert len(sink.of(kind)) == log.rows(f"SELECT count(*) FROM {table}")[0][0], kind
    assert max(map(len, sink.batches)) == 7
    assert sent(log, tmp_path / "state.json").ids == []


def test_exposures_come_in_the_order_of_the_decisions_of_each_spool(log: Logged, tmp_path: Path) -> None:
    decisions = [int(event["data"]["decision"]) for event in sent(log, tmp_path / "s").of("exposure")]
    for spool in {spool_of(decision) for decision in decisions}:
        of_one = [decision for decision in decisions if spool_of(decision) == spool]
        assert of_one == sorted(of_one)


def test_outcomes_come_as_they_arrived_and_decisions_as_they_were_made(log: Logged, tmp_path: Path) -> None:
    sink = sent(log, tmp_path / "s")
    order = [(event["data"]["at"], int(event["data"]["decision"]), event["data"]["id"]) for event in sink.of("outcome")]
    assert order == sorted(order)
    assert [event["data"]["id"] for event in sink.of("decision")] == [1, 2, 3]


def test_events_are_cloudevents_with_the_columns_of_an_export(log: Logged, tmp_path: Path) -> None:
    sink = sent(log, tmp_path / "s")
    event = sink.of("exposure")[0]
    decision, at, unit = log.rows("SELECT decision, at, unit FROM assignment ORDER BY decision LIMIT 1")[0]
    assert {name: event[name] for name in ("specversion", "id", "source", "type", "time", "subject")} == {
        "specversion": "1.0",
        "id": f"exposure/{decision}",
        "source": "/test",
        "type": "gateway.exposure",
        "time": iso(at),
        "subject": "exp",
    }
    data = event["data"]
    assert (data["decision"], data["unit"], data["forced"]) == (str(decision), bytes(unit).hex(), False)
    assert set(data["segments"]) == {"origin"}
    (fixed,) = (event for event in sink.of("exposure") if event["subject"] == "search")
    assert (fixed["data"]["experiment"], fixed["data"]["status"], fixed["data"]["tries"]) == ("", 404, 2)
    (orphan,) = (event for event in sink.of("outcome") if event["data"]["id"] == "orphan")
    assert "subject" not in orphan
    assert orphan["data"]["variant"] is None
    assert sink.of("decision")[-1]["data"]["body"]["evidence"]["experiment"] == "exp"
    texts = [event.text for batch in sink.batches for event in batch]
    assert not any(b"\n" in text for text in texts)


@pytest.mark.parametrize("kinds", [("exposures",), ("outcomes", "decisions")])
def test_only_the_kinds_that_are_wanted(sqlite_log: Logged, tmp_path: Path, kinds: tuple[str, ...]) -> None:
    sink = sent(sqlite_log, tmp_path / "s", kinds=kinds)
    assert {event["type"].removeprefix("gateway.") + "s" for event in sink.events} == set(kinds)


def test_an_exposure_waits_for_its_completion_and_holds_up_its_own_spool_only(
    logs: Callable[..., Logged], tmp_path: Path
) -> None:
    log = logs(units=0)
    world, state = log.world, tmp_path / "s"
    sent(log, state)
    first, second, other = (world.assign(name, True, shard=shard) for name, shard in (("1", 0), ("2", 0), ("3", 1)))
    world.complete(second)
    world.complete(other)
    world.step(1.0)
    assert sent(log, state).ids == [f"exposure/{other}"]
    world.complete(first)
    world.step(1.0)
    assert sent(log, state).ids == [f"exposure/{first}", f"exposure/{second}"]


def test_who_is_overdue_is_sent_without_completion_and_a_later_one_changes_nothing(
    logs: Callable[..., Logged], tmp_path: Path
) -> None:
    log = logs(units=0)
    world, state = log.world, tmp_path / "s"
    sent(log, state)
    late = world.assign("late", True)
    world.pass_time(1.0)
    world.step(1.5)  # a request of this experiment has two seconds
    (told,) = sent(log, state).events
    assert (told["id"], told["data"]["completed_at"], told["data"]["status"]) == (f"exposure/{late}", None, None)
    world.complete(late)
    world.step(1.0)
    assert sent(log, state).ids == []
    # Whoever begins anew is told the same.
    (again,) = (event for event in sent(log, tmp_path / "other").events if event["id"] == told["id"])
    assert again == told


def test_a_fixed_split_has_longer_and_a_dead_worker_holds_up_nobody(
    logs: Callable[..., Logged], tmp_path: Path
) -> None:
    log = logs(units=0)
    world, state = log.world, tmp_path / "s"
    sent(log, state)
    for number in (0, 1):
        to = world.shards[number]
        to.sequence += 1
        to.requests.append(
            Assignment(
                decision_id(number + 1, to.sequence), to.requests.now(), "search", "", "", "x", 1.0, 7, b"u" * 16, (), 1
            )
        )
    world.step(OVERDUE_US / 1e6 / 2)
    assert sent(log, state).ids == []
    world.shards.pop().die()
    world.step(1.0)
    assert [spool_of(int(event["data"]["decision"])) for event in sent(log, state).events] == [2]
    world.step(OVERDUE_US / 1e6 / 2)
    world.whole("somebody", True, None)  # nothing that happens, no step that is written down
    world.step(1.0)
    assert [spool_of(int(event["data"]["decision"])) for event in sent(log, state).events] == [1, 1]


def test_what_lies_beyond_the_watermark_waits(logs: Callable[..., Logged], tmp_path: Path) -> None:
    log = logs(units=0)
    world, state = log.world, tmp_path / "s"
    sent(log, state)
    decision = world.whole("early", True, 0.5, shard=0)
    world.clock.advance(1.0)
    world.shards[0].heartbeat()
    world.step()
    assert log.rows("SELECT count(*) FROM outcome WHERE decision = ?", decision) == [(1,)]
    assert sent(log, state).ids == []
    world.step(1.0)
    assert sent(log, state).ids == [f"exposure/{decision}", f"outcome/{decision}/brier/"]


@pytest.mark.parametrize("how", ["fails_before", "fails_after"])
def test_after_a_failure_at_any_batch_nothing_is_missing_and_repeats_have_the_same_ids(
    sqlite_log: Logged, tmp_path: Path, how: str
) -> None:
    whole = sent(sqlite_log, tmp_path / "whole", most=40)
    assert len(whole.batches) > 6
    for at in range(1, len(whole.batches) + 1):
        state, first = tmp_path / f"{at}", Kept(fails_before=at) if how == "fails_before" else Kept(fails_after=at)
        with pytest.raises(SinkError), outbox(sqlite_log, state, first, most=40) as parts:
            run(parts, follow=False)
        second = sent(sqlite_log, state, most=40)
        repeated = set(first.ids) & set(second.ids)
        assert set(first.ids) | set(second.ids) == set(whole.ids)
        assert len(repeated) == (0 if how == "fails_before" else len(first.batches[-1]))
        told = {event["id"]: event for event in first.events}
        assert all(told[event["id"]] == event for event in second.events if event["id"] in told)
        for kind in ("exposure", "outcome", "decision"):
            order = [event["id"] for event in whole.of(kind)]
            assert [event["id"] for event in second.of(kind)] == order[len(order) - len(second.of(kind)) :]


def test_following_goes_on_until_told_to_stop(log: Logged, tmp_path: Path) -> None:
    sink, clock = Kept(), FakeClock()
    waits = Waits(clock, most=5)
    dice = random.Random(1)

    def live() -> None:
        live_one_unit(log.world, 1_000 + len(waits.waits), dice)
        log.world.settle()

    waits.meanwhile = live
    with outbox(log, tmp_path / "s", sink, waits=waits) as parts:
        assert run(parts, follow=True) == len(sink.ids) == len(set(sink.ids))
    assert len(waits.waits) == 5
    assert min(waits.waits) >= 1.0
    rest = sent(log, tmp_path / "s")  # of the last unit, which came in the wait that was ended
    assert len(sink.of("exposure")) + len(rest.of("exposure")) == 121 + 5


def test_a_decision_is_told_at_the_next_look_though_nothing_was_folded_since(log: Logged, tmp_path: Path) -> None:
    store, sink, state = log.world.store, Kept(), tmp_path / "s"
    sent(log, state)
    before = store.last_step()
    waits = Waits(FakeClock(), most=4)

    def steer() -> None:
        if len(waits.waits) == 2:
            store.append_ledger(log.world.clock.wall_us(), 1, "rank", "exp", "hold", {"actor": "ada", "text": "wait"})

    waits.meanwhile = steer
    with outbox(log, state, sink, waits=waits) as parts:
        assert run(parts, follow=True) == 1
    assert store.last_step() == before
    assert [event["data"]["kind"] for event in sink.of("decision")] == ["hold"]


def test_a_stop_comes_between_two_batches(sqlite_log: Logged, tmp_path: Path) -> None:
    sink, waits = Kept(), Waits(FakeClock(), most=0)
    with outbox(sqlite_log, tmp_path / "s", sink, waits=waits) as parts:
        assert run(parts, follow=False) == 7
    assert len(sink.batches) == 1
    assert not set(sink.ids) & set(sent(sqlite_log, tmp_path / "s").ids)


def test_who_begins_at_a_time_gets_what_came_from_then_on(log: Logged, tmp_path: Path) -> None:
    cut = log.rows("SELECT at FROM assignment ORDER BY at LIMIT 1 OFFSET 60")[0][0]
    sink = Kept()
    with outbox(log, tmp_path / "s", sink) as parts:
        run(parts, follow=False, since=cut)
    assert {event["data"]["at"] for event in sink.of("exposure")} == {
        iso(at) for (at,) in log.rows("SELECT at FROM assignment WHERE at >= ?", cut)
    }
    assert len(sink.of("outcome")) == log.rows("SELECT count(*) FROM outcome WHERE at >= ?", cut)[0][0]
    assert [event["data"]["kind"] for event in sink.of("decision")] == ["advance", "promote"]
    log.world.whole("new", True, 0.5)
    log.world.settle()
    assert len(sent(log, tmp_path / "s").ids) == 2


def test_batches_are_bounded_in_bytes_too(sqlite_log: Logged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.export.outbox.feed._BYTES", 2_000)
    sink = sent(sqlite_log, tmp_path / "s", most=1_000)
    sizes = [(len(batch), sum(len(event.text) for event in batch)) for batch in sink.batches]
    assert all(size <= 2_000 or number == 1 for number, size in sizes)
    assert max(number for number, _ in sizes) > 1
    assert len(sink.ids) == len(set(sink.ids)) == len(sent(sqlite_log, tmp_path / "t", most=1_000).ids)


def test_many_outcomes_of_one_moment_are_parted_without_loss(
    sqlite_log: Logged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.export.outbox.feed._PAGE", 10)
    monkeypatch.setattr("gateway.export.outbox.feed._ROWS", 2)
    monkeypatch.setattr("gateway.export.outbox.feed.CHUNK", 3)
    world = sqlite_log.world
    decision = world.assign("popular", True)
    for number in range(45):
        world.outcome(decision, 0.5, id=f"{number % 7}-{number}")
    world.settle()
    sink = sent(sqlite_log, tmp_path / "s")
    assert len(sink.ids) == len(set(sink.ids))
    assert len(sink.of("outcome")) == sqlite_log.rows("SELECT count(*) FROM outcome")[0][0]


def test_a_position_is_of_one_store(logs: Callable[..., Logged], tmp_path: Path) -> None:
    log = logs(units=0)
    state = tmp_path / "s"
    sent(log, state)
    document = json.loads(state.read_bytes())
    state.write_text(json.dumps(document | {"store": "1@1"}))
    with pytest.raises(PositionError, match="another store"):
        sent(log, state)
    state.write_text("{]")
    with pytest.raises(PositionError, match="not the position of an outbox"):
        sent(log, state)


def test_a_position_is_of_one_target(sqlite_log: Logged, tmp_path: Path) -> None:
    state = tmp_path / "s"
    assert sent(sqlite_log, state, target="https://lake/events").ids
    with pytest.raises(PositionError, match="went to https://lake/events, and not to https://sea/events: take another"):
        sent(sqlite_log, state, target="https://sea/events")
    assert sent(sqlite_log, state, target="https://sea/events", moved=True).ids == []
    assert sent(sqlite_log, state, target="https://sea/events").ids == []
    with pytest.raises(PositionError, match="went to https://sea/events"):
        sent(sqlite_log, state, target="https://lake/events")


def test_a_position_of_before_targets_were_written_down_is_read(sqlite_log: Logged, tmp_path: Path) -> None:
    state = tmp_path / "s"
    sent(sqlite_log, state)
    document = json.loads(state.read_bytes())
    del document["target"]
    state.write_text(json.dumps(document))
    assert sent(sqlite_log, state, target="https://sea/events").ids == []
    assert json.loads(state.read_bytes())["target"] == "https://sea/events"


def test_two_of_one_name_do_not_run_together(sqlite_log: Logged, tmp_path: Path) -> None:
    with held(tmp_path / "s"), pytest.raises(PositionError, match="another outbox of this name"):
        sent(sqlite_log, tmp_path / "s")
    assert sent(sqlite_log, tmp_path / "s").ids


def test_what_has_expired_unsent_is_told(sqlite_log: Logged, tmp_path: Path) -> None:
    told: list[str] = []
    sent(sqlite_log, tmp_path / "s", told=told)
    assert told == []
    day = 86_400_000_000
    last = sqlite_log.world.store.last_step()
    with sqlite_log.world.store.transaction():
        sqlite_log.world.store.expire(last.watermark // day + 1, last.at)
    sent(sqlite_log, tmp_path / "s", told=told)
    assert len(told) == 1
    assert "may never have been sent" in told[0]


def test_a_position_that_cannot_be_kept_ends_the_outbox(sqlite_log: Logged, tmp_path: Path) -> None:
    sink = Kept()
    state = tmp_path / "folder" / "s"
    with outbox(sqlite_log, state, sink) as parts:
        (tmp_path / "folder" / ".s.new").mkdir()
        with pytest.raises(PositionError, match="could not be kept"):
            run(parts, follow=False)
    assert len(sink.batches) == 1


@pytest.mark.usefixtures("postgres")  # which says what to do without a server
def test_who_follows_waits_for_a_store_that_is_away(tmp_path: Path) -> None:
    """A server of its own, for it is stopped."""
    with PostgresServer() as server:
        log = make_log(tmp_path / "log", server.dsn(server.create()), units=20)
        sink, told, clock = Kept(), list[str](), FakeClock()
        waits = Waits(clock, most=8)

        def stop_and_start() -> None:
            if len(waits.waits) == 2:
                log.world.whole("while nobody looks", True, 0.5)
                log.world.settle()
                log.world.store.close()
                server.stop()
            elif len(waits.waits) == 4:
                server.start()

        waits.meanwhile = stop_and_start
        store = open_store(log.url, read_only=True, clock=clock)
        with outbox(log, tmp_path / "s", sink, waits=waits, told=told, store=store) as parts:
            run(parts, follow=True)
        assert len(told) == 2
        assert len(sink.ids) == len(set(sink.ids))
        assert len(sink.of("exposure")) == 22
        server.stop()
        with pytest.raises(StoreUnavailable), outbox(log, tmp_path / "t", Kept()) as parts:
            run(parts, follow=False)
        for shard in log.world.shards:
            shard.die()
