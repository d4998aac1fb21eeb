"""What several nodes have shipped, and leaders in turn have folded, can be made again as well."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.evidence.shared import SharedEngine
from gateway.evidence.ship import MAX_LAG_US
from gateway.forgetting.completion import PAUSE
from gateway.forgetting.erasure import Erasures
from gateway.spool.writer import SpoolWriter
from gateway.store.postgres.store import PostgresStore
from tests.postgres import fresh_database, migrated, postgres
from tests.unit.audit.story import RICH, again, live, said, unit_hash
from tests.unit.evidence.world import Shard, World
from tests.unit.forgetting.forgetful import ask_knowing

__all__ = ["fresh_database", "migrated", "postgres"]


@dataclass
class Nodes:
    """Two nodes, each with a worker, in the place of a world's engine."""

    stores: list[PostgresStore]
    engines: list[SharedEngine]
    leader: int = 0
    asleep: set[int] = field(default_factory=set)

    def step(self) -> int:
        """Both ship, the one that leads also folds."""
        awake = [engine for number, engine in enumerate(self.engines) if number not in self.asleep]
        return sum(engine.step() for engine in awake)

    def lead(self, number: int) -> None:
        self.stores[self.leader].resign()
        self.engines[self.leader].epoch = 0
        self.engines[number].epoch = self.stores[number].lead(3600.0).epoch
        self.leader = number

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engines[self.leader], name)


@pytest.fixture
def cluster(fresh_database: str, tmp_path: Path) -> Iterator[World]:
    stores = [PostgresStore(fresh_database) for _ in range(2)]
    for number, store in enumerate(stores):
        store.join(f"node {number}", "here", "keys")
    stores[0].lead(3600.0)
    world = World(tmp_path / "0", define=RICH, store=stores[0])
    world.shard()
    (tmp_path / "1" / "spool").mkdir(parents=True)
    requests, outcomes = (
        SpoolWriter(tmp_path / "1" / "spool", 2, stream, b"j" * 16, world.clock) for stream in ("requests", "outcomes")
    )
    world.shards.append(Shard(requests, outcomes))
    engines = [
        SharedEngine(tmp_path / f"{number}" / "spool", store, world.clock) for number, store in enumerate(stores)
    ]
    world.engine = nodes = Nodes(stores, engines)  # type: ignore[assignment]
    nodes.lead(0)
    yield world
    world.close()
    stores[1].close()


def test_leaders_in_turn(cluster: World) -> None:
    nodes: Any = cluster.engine
    turns = iter(range(1000))
    live(cluster, 1, days=2, then=lambda: nodes.lead(next(turns) % 2))
    replayed = again(cluster)
    assert replayed.findings == ()
    assert replayed.votes == replayed.readmitted > 50
    assert said(cluster) == []


def test_a_node_that_was_given_up(cluster: World) -> None:
    nodes: Any = cluster.engine

    def sleep() -> None:
        """Now and then the other node says nothing for too long."""
        if cluster.clock.wall_us() // 10_000_000 % 3 == 0 and not nodes.asleep:
            nodes.asleep = {1}
            cluster.pass_time(1.0)
            for _ in range(3):
                nodes.step()
                cluster.pass_time(MAX_LAG_US / 2e6)
            nodes.step()
            nodes.asleep = set()

    live(cluster, 3, days=1, requests=60, then=sleep)
    assert sum(number for (_, name), number in cluster.counters.items() if name == "late") > 5
    assert len(cluster.store.late_assignments()) > 0
    replayed = again(cluster)
    assert replayed.findings == ()
    assert replayed.votes == replayed.readmitted + replayed.unsure
    assert said(cluster) == []


def test_a_node_that_was_away_brings_back_nothing_of_a_unit_that_was_erased_meanwhile(cluster: World) -> None:
    nodes: Any = cluster.engine
    split, some = {"b": 0.4, "c": 0.2}, Erasures(cluster.store, cluster.clock, lambda: 0)
    for number in range(6):
        cluster.whole(f"u{number}", "ab"[number % 2], None, pi=split, shard=number % 2)
    cluster.step(1.0)
    nodes.asleep = {1}
    cluster.clock.advance(1.0)
    for unit in ("u3", "u4"):
        cluster.whole(unit, "b", None, pi=split, shard=1)
    ask_knowing(cluster, "u3")
    for _ in range(8):
        cluster.step(MAX_LAG_US / 2e6)
        some.tick(nodes.engines[0])
    away = cluster.store.nodes()[1]
    [one] = cluster.store.erasures()
    assert away.through < one.at < one.through <= away.given_up, "else it would be in time with what is refused"
    cluster.step(2 * 86_400.0)
    some.tick(nodes.engines[0])
    assert cluster.store.erasures() == [one], "its date has come, and the other node has not"
    nodes.stores[0].forget(away.number)
    cluster.step(PAUSE)
    some.tick(nodes.engines[0])
    assert cluster.store.erasures() == [one], "it may come back all the same"
    nodes.stores[1].join("node 1", "here", "keys")
    nodes.asleep = set()
    cluster.step(1.0)
    assert [held(cluster, unit) for unit in ("u3", "u4")] == [0, 2]
    cluster.step(PAUSE)
    some.tick(nodes.engines[0])
    assert cluster.store.erasures() == []
    assert again(cluster).findings == ()
    assert said(cluster) == []


def test_complete_is_what_every_node_and_every_spool_has_shipped(cluster: World) -> None:
    nodes: Any = cluster.engine
    leader = nodes.engines[0]

    def alone(seconds: float) -> None:
        cluster.clock.advance(seconds)
        cluster.shards[0].heartbeat()
        nodes.step()

    cluster.step(1.0)
    silent = cluster.clock.wall_us()
    for _ in range(3):
        alone(MAX_LAG_US / 1.9e6)
    assert min(node.through for node in cluster.store.nodes()) > silent, "nobody waits for its spool"
    assert leader.complete_through == silent
    cluster.shards.pop().die()
    alone(1.0)
    assert leader.complete_through == cluster.clock.wall_us()
    nodes.asleep = {1}
    away = cluster.clock.wall_us()
    alone(5.0)
    assert leader.complete_through == away
    nodes.stores[1].report("here", "", 0, "spool 9 cannot be read")
    assert leader.complete_through == 0, "of that spool the store may know nothing"


def held(world: World, unit: str) -> int:
    """Requests of a unit that are there."""
    number: int = world.store.row("SELECT count(*) FROM assignment WHERE unit = ?", (unit_hash(unit),))[0]
    return number


def test_whoever_leads_forgets_a_unit_that_another_has_known(cluster: World) -> None:
    nodes: Any = cluster.engine
    some = [Erasures(store, cluster.clock, lambda: 0) for store in nodes.stores]
    for number in range(6):
        cluster.whole(f"u{number}", "ab"[number % 2], None, pi={"b": 0.4, "c": 0.2}, shard=number % 2)
    cluster.step(1.0)
    nodes.lead(1)
    ask_knowing(cluster, "u3")
    for _ in range(6):
        cluster.step(1.0)
        some[1].tick(nodes.engines[1])
    assert [one.through > 0 for one in cluster.store.erasures()] == [True]
    assert cluster.store.row("SELECT count(*) FROM unit")[0] == 5
    cluster.whole("u3", "b", None, pi={"b": 0.4, "c": 0.2})
    cluster.step(1.0)
    assert cluster.store.row("SELECT count(*) FROM vote")[0] == 7
    assert again(cluster).findings == ()
    assert said(cluster) == []
