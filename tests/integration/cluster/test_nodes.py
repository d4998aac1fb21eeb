"""Several controllers, one PostgreSQL: one decides, all serve the same, nobody is counted twice."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx
import pytest

from gateway.admin import samples, views
from gateway.admin.app import admin_app
from gateway.admin.text import status_view
from gateway.clock import FakeClock
from gateway.errors import UnknownNode
from gateway.evidence.engine import AnyEngine
from gateway.evidence.folded import Followed
from gateway.evidence.ship import MAX_LAG_US
from gateway.plan import shares
from gateway.release.intake import ReloadStatus
from gateway.release.membership import NodeLives
from gateway.release.needs import missing
from gateway.release.state import Decision
from gateway.store.postgres.store import PostgresStore
from gateway.telemetry.metrics import CLOCK_AHEAD, CONFIG_DIFFERS, SPOOL_FAILURES
from tests.integration.cluster.conftest import Cluster
from tests.unit.admin.printing import printed
from tests.unit.release.configs import experiment
from tests.unit.release.rig import Rig


def pair(cluster: Cluster) -> tuple[Rig, Rig]:
    """Two nodes; the first one leads."""
    first, second = cluster.node(), cluster.node()
    cluster.settle()
    assert (first.control.engine.leading, second.control.engine.leading) == (True, False)
    return first, second


def kinds(cluster: Cluster) -> list[tuple[str, str]]:
    rows = cluster.query("SELECT kind, body FROM ledger ORDER BY id")
    return [(kind, json.loads(body)["actor"]) for kind, body in rows]


def test_one_leads_and_starts_and_the_other_serves_the_same(cluster: Cluster) -> None:
    first, second = pair(cluster)
    assert kinds(cluster) == [("start", "config")]
    assert first.state == second.state
    assert first.plan.endpoints == second.plan.endpoints
    assert first.plan.revision != second.plan.revision
    assert first.split == {"a": 0.99, "b": 0.01}


def test_facts_of_all_nodes_are_one_story(cluster: Cluster) -> None:
    first, second = pair(cluster)
    for _ in range(14):
        for rig in (first, second):
            rig.units(10, better=0.3)
        cluster.tick(seconds=61.0)
        cluster.tick()
    assert first.status == second.status == "promoted"
    cluster.settle()
    assert first.split == second.split == {"b": 1.0}
    assert [kind for kind, _ in kinds(cluster)].count("promote") == 1
    votes = dict(cluster.query("SELECT decision >> 40, count(DISTINCT decision) FROM vote GROUP BY 1"))
    assert votes[first.spool] == votes[second.spool] >= 60
    ((rows,),) = cluster.query("SELECT count(*) FROM vote")
    assert rows == sum(votes.values())
    assert first.control.engine.progress("one") == second.control.engine.progress("one")
    assert first.sqlite.broken_link() is None


def test_a_leader_that_was_stopped_wakes_up_and_decides_nothing(cluster: Cluster) -> None:
    first, second = pair(cluster)
    cluster.end_lease()
    cluster.tick(second)
    cluster.tick(second)
    assert second.control.engine.leading
    for rig in (first, second):
        rig.units(60, errors="b")
    cluster.tick(second, seconds=61.0)
    before = kinds(cluster)
    # Its own clock would tell it, but a clock may be wrong: it believes that it leads, with evidence of before.
    membership: Any = first.control.membership
    membership._meet_at = membership._leads_until = first.clock.monotonic() + 1000.0
    first.control.tick()
    assert first.control.store_error.endswith("this node does not lead any more")
    assert kinds(cluster) == before
    cluster.settle()
    assert not first.control.engine.leading
    assert first.control.store_error == ""
    assert first.state == second.state


def test_nothing_moves_until_all_nodes_have_the_file(cluster: Cluster) -> None:
    first, second = pair(cluster)
    first.endpoint = second.endpoint = experiment("two")
    first.control.take(first.load())
    cluster.settle()
    assert first.state.experiment == "one" or first.state.status == "fixed"
    assert first.split == second.split == {"a": 0.99, "b": 0.01}, "the old plan stays"
    assert second.state.experiment == "one"
    second.control.take(second.load())
    cluster.settle()
    assert first.state.experiment == second.state.experiment == "two"
    assert [kind for kind, _ in kinds(cluster)] == ["start", "withdraw", "start"]
    assert first.plan.endpoints == second.plan.endpoints
    assert first.plan.endpoints[0].experiment == "two"


def test_a_node_with_another_file_holds_stages_and_no_rollback(cluster: Cluster) -> None:
    first, second = pair(cluster)
    second.endpoint = experiment(max_duration="20d")
    second.control.take(second.load())
    cluster.settle()
    for rig in (first, second):
        rig.units(60)
    cluster.tick(seconds=61.0)
    cluster.tick()
    assert first.state.stage == "traffic-1%"
    view = first.control._releases.view("rank", loading=False)
    assert "node-2" in missing(view)
    for rig in (first, second):
        rig.failures("b", ok=0, error=9)
    cluster.settle()
    assert first.status == second.status == "rolled_back"


@pytest.mark.parametrize("killer", [0, 1])
def test_the_kill_rule_of_any_node_rolls_back_once(cluster: Cluster, killer: int) -> None:
    nodes = pair(cluster)
    nodes[killer].failures("b", ok=0, error=9)
    cluster.settle()
    assert [rig.status for rig in nodes] == ["rolled_back", "rolled_back"]
    assert [rig.split for rig in nodes] == [{"a": 1.0}, {"a": 1.0}]
    assert [kind for kind, _ in kinds(cluster)] == ["start", "rollback"]


def test_both_kill_at_once_and_one_row_is_written(cluster: Cluster) -> None:
    first, second = pair(cluster)
    for rig in (first, second):
        rig.failures("b", ok=0, error=9)
    cluster.settle()
    assert [kind for kind, _ in kinds(cluster)] == ["start", "rollback"]
    assert first.split == second.split == {"a": 1.0}


def test_a_person_is_heard_by_any_node(cluster: Cluster) -> None:
    first, second = pair(cluster)
    second.control.command("rank", "hold", "ada", "lunch")
    cluster.tick(first)
    assert first.state.hold == "lunch"
    first.control.command("rank", "rollback", "bob", "enough")
    cluster.settle()
    assert second.split == {"a": 1.0}
    assert kinds(cluster)[1:] == [("hold", "ada"), ("rollback", "bob")]


def test_a_node_that_says_nothing_is_given_up_and_its_facts_are_late(cluster: Cluster) -> None:
    first, second = pair(cluster)
    second.units(10)
    for _ in range(3):
        first.units(10)
        cluster.tick(first, seconds=MAX_LAG_US / 2e6 + 1)
    cluster.tick(first, seconds=61.0)
    ((votes,),) = cluster.query("SELECT count(*) FROM vote")
    assert votes >= 20, "the others go on"
    cluster.tick(second)
    cluster.settle()
    late = dict(cluster.query("SELECT kind, count(*) FROM late_fact GROUP BY kind"))
    assert late == {"assignment": 10, "completion": 10, "outcome": 10}
    counted = dict(cluster.query("SELECT name, sum(value) FROM counter WHERE variant = 'b' GROUP BY name"))
    assert counted["late"] == 10, "5 assignments and 5 outcomes of the challenger"
    ((after,),) = cluster.query(f"SELECT count(*) FROM vote WHERE decision >> 40 = {second.spool}")
    assert after == 0


def test_whoever_leaves_is_not_waited_for(cluster: Cluster) -> None:
    first, second = pair(cluster)
    second.control.membership.leave()
    first.units(10)
    cluster.tick(first)
    cluster.tick(first)
    ((votes,),) = cluster.query("SELECT count(*) FROM vote")
    assert votes == 10
    second.control.membership.rejoin()
    cluster.settle()
    second.units(10)
    cluster.settle()
    ((votes,),) = cluster.query("SELECT count(*) FROM vote")
    assert votes == 20


def test_a_leader_that_leaves_is_followed_at_once(cluster: Cluster) -> None:
    first, second = pair(cluster)
    first.control.membership.leave()
    cluster.tick(second)
    cluster.tick(second)
    assert second.control.engine.leading
    assert shares(second.plan.endpoints[0].slots).keys() == {"a", "b"}


def test_what_two_write_at_once_is_written_once_and_the_other_looks_again(cluster: Cluster) -> None:
    first, second = pair(cluster)
    before = second.state
    first.control.command("rank", "hold", "ada", "first")
    assert second.state == before
    second.control._releases.run("one").decision = Decision(kind="hold", reason="manual", text="")
    with pytest.raises(Exception, match="changed by somebody else"):
        second.control.command("rank", "rollback", "bob", "second")
    cluster.settle()
    assert second.state.hold == "first"
    assert [kind for kind, _ in kinds(cluster)] == ["start", "hold"]


def test_a_node_with_an_old_file_serves_what_it_served_when_the_others_have_gone_on(cluster: Cluster) -> None:
    first, second = pair(cluster)
    cluster.query("SELECT 1")
    first.sqlite.write("UPDATE node SET reported_at = reported_at - interval '60 seconds' WHERE number = 2")
    first.endpoint = experiment("two")
    first.control.take(first.load())
    cluster.tick(first)
    cluster.tick(first)
    assert first.state.experiment == "two", "whoever says nothing is not waited for"
    before = second.plan
    cluster.settle()
    assert second.plan.endpoints == before.endpoints
    assert second.plan.endpoints[0].experiment == "one"
    assert second.control.store_error == ""
    restarted = second.restart()
    restarted.tick()
    assert second.plan.endpoints[0].experiment == "one"
    second.endpoint = experiment("two")
    second.control.take(second.load())
    cluster.settle()
    assert second.plan.endpoints == first.plan.endpoints


def test_an_experiment_that_begins_is_known_to_all_in_the_same_round(cluster: Cluster) -> None:
    first, second = cluster.node(), cluster.node()
    for _ in range(30):
        cluster.tick(seconds=0.1)
        assert first.control.store_error == second.control.store_error == ""
    cluster.tick(seconds=1.0)
    cluster.tick(seconds=0.1)
    assert second.state.experiment == "one"
    assert second.control.run("one").report is not None


def test_what_a_follower_knows_is_of_one_step_also_while_the_leader_goes_on(cluster: Cluster) -> None:
    first, _ = pair(cluster)

    def go_on() -> None:
        first.units(5)
        cluster.settle()

    class Overtaken(PostgresStore):
        def cursors(self, experiment: str) -> dict[str, int]:
            found = super().cursors(experiment)
            go_on()
            return found

    def seen(engine: AnyEngine | Followed) -> tuple[int, int, tuple[int, ...]]:
        return engine.step_number, engine.watermark, engine.progress("one")

    go_on()
    before = seen(first.control.engine)
    store = Overtaken(cluster.url)
    followed = Followed(store)
    store.close()
    assert seen(followed) == before
    assert seen(first.control.engine) > before


def test_a_clock_that_was_set_back_does_not_stop_the_folding(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.evidence.leader.MOST", 4)
    monkeypatch.setattr("gateway.evidence.leader.LEAST", 4)
    first, _ = pair(cluster)
    first.clock.advance(10.0)
    first.requests.heartbeat()
    wall = FakeClock.wall_us
    with monkeypatch.context() as patched:
        patched.setattr(FakeClock, "wall_us", lambda clock: wall(clock) - 5_000_000)
        first.units(12)
    cluster.settle(6)
    ((votes,),) = cluster.query("SELECT count(*) FROM vote")
    assert votes == 12


def edited(rig: Rig) -> None:
    """Its file has another share in the present stage than those of the other nodes."""
    document = experiment()
    document["experiment"]["stages"][0]["traffic"] = "2%"
    rig.endpoint = document
    rig.control.take(rig.load())


@pytest.mark.parametrize("place", [0, 1])
def test_a_node_with_another_file_serves_at_once_what_a_person_asks_of_it(cluster: Cluster, place: int) -> None:
    """Whether it leads or not."""
    node = pair(cluster)[place]
    edited(node)
    cluster.settle()
    assert node.split == {"a": 0.99, "b": 0.01}
    node.control.command("rank", "hold", "ada", "look at it")
    assert node.state.hold == "look at it"
    node.control.command("rank", "resume", "ada", "")
    assert node.state.hold == ""
    node.control.command("rank", "rollback", "ada", "must stop")
    assert node.split == {"a": 1.0}
    cluster.settle()
    assert {rig.status for rig in cluster.nodes} == {"rolled_back"}
    assert all(rig.split == {"a": 1.0} for rig in cluster.nodes)
    assert [kind for kind, _ in kinds(cluster)] == ["start", "hold", "resume", "rollback"]


@pytest.mark.parametrize("place", [0, 1])
def test_a_node_with_another_file_has_the_kill_rule(cluster: Cluster, place: int) -> None:
    node = pair(cluster)[place]
    edited(node)
    cluster.settle()
    node.failures("b", ok=0, error=9)
    cluster.tick(node, seconds=0.1)
    assert node.split == {"a": 1.0}


def test_nodes_that_wait_for_each_others_files_say_so(cluster: Cluster) -> None:
    first, _ = pair(cluster)

    def told() -> tuple[str, list[Any]]:
        text = printed(status_view(views.status(first.control, ReloadStatus(0), first.clock.wall_us())))
        all_samples = samples.samples(first.control, ReloadStatus(0), first.clock.wall_us())
        return text, [value for metric, _, value in all_samples if metric is CONFIG_DIFFERS]

    text, values = told()
    assert "until all nodes" not in text
    assert values == [0.0]
    first.endpoint = experiment("two")
    first.control.take(first.load())
    cluster.settle()
    assert first.state.experiment == "", "it has not begun"
    text, values = told()
    assert "until all nodes have the same endpoints: node 2 (node-2) still with another config file" in text
    assert values == [1.0]


def silence(cluster: Cluster, number: int, seconds: int) -> None:
    """As if a node had said nothing for so long, by the database's clock."""
    cluster.nodes[0].sqlite.write(
        f"UPDATE node SET reported_at = clock_timestamp() - interval '{seconds} seconds' WHERE number = {number}"
    )


def known(rig: Rig) -> list[int]:
    return [node.number for node in rig.control.membership.nodes]


def test_a_dead_node_whose_log_is_not_whole_holds_promotions_until_it_is_forgotten(cluster: Cluster) -> None:
    first, second = pair(cluster)
    second.page.words[second.page.slot(SPOOL_FAILURES.name, ("requests",))] += 1
    cluster.tick()
    cluster.tick()
    assert first.control._releases.facts_lost
    with pytest.raises(NodeLives, match=r"node 2 \(node-2\) is there"):
        first.control.forget_node(2, "ada", "")
    with pytest.raises(UnknownNode, match="no node 3"):
        first.control.forget_node(3, "ada", "")
    silence(cluster, 2, 60)
    cluster.tick(first)
    assert first.control._releases.facts_lost, "of what it had nobody knows more"
    first.control.forget_node(2, "ada", "its machine is gone")
    assert known(first) == [1]
    assert not first.control._releases.facts_lost
    cluster.tick(second)
    cluster.tick(second)
    cluster.tick()
    assert known(first) == known(second) == [1, 2], "it was there after all, and has joined anew"


def test_who_says_nothing_for_a_day_is_forgotten_by_the_leader(cluster: Cluster) -> None:
    first, second = pair(cluster)
    silence(cluster, 2, 86_390)
    cluster.tick(first)
    assert known(first) == [1, 2]
    silence(cluster, 2, 86_410)
    cluster.tick(first)
    cluster.tick(first)
    assert known(first) == [1]
    silence(cluster, 1, 86_410)
    cluster.tick(second)
    assert first.control.engine.leading
    assert 1 in known(second), "only who leads forgets, and never itself"


def test_a_node_is_forgotten_by_a_request_to_any_other(cluster: Cluster) -> None:
    first, _ = pair(cluster)

    class Port:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"{name} is not asked for here")

        def snapshot(self) -> dict[str, Any]:
            return {"nodes": known(first)}

        async def forget_node(self, number: int, actor: str, text: str) -> None:
            first.control.forget_node(number, actor, text)

    async def sent(path: str) -> httpx.Response:
        transport = httpx.ASGITransport(admin_app(Port()))
        async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
            return await client.post(path, json={"actor": "ada", "reason": "gone"})

    assert asyncio.run(sent("/api/nodes/2/forget")).json()["type"] == "urn:gateway:node_lives"
    assert asyncio.run(sent("/api/nodes/7/forget")).status_code == 404
    silence(cluster, 2, 11)
    answer = asyncio.run(sent("/api/nodes/2/forget"))
    assert (answer.status_code, answer.json()) == (200, {"nodes": [1]})


@pytest.mark.parametrize("ahead", [-86_400, 40])
def test_a_clock_that_is_not_the_stores_is_told(cluster: Cluster, ahead: int) -> None:
    cluster.clock = FakeClock(round((time.time() + ahead) * 1e6))
    first = cluster.node()
    cluster.tick()
    told = first.control.membership.clock_ahead
    assert ahead - 30 < told < ahead + 2, "but for the time since then"
    text = printed(status_view(views.status(first.control, ReloadStatus(0), first.clock.wall_us())))
    assert f"this node's clock is {abs(told):.1f} s {'ahead of' if ahead > 0 else 'behind'} the store's" in text
    told_metrics = samples.samples(first.control, ReloadStatus(0), first.clock.wall_us())
    assert [value for metric, _, value in told_metrics if metric is CLOCK_AHEAD] == [told]
