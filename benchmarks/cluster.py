"""Three nodes on one PostgreSQL under load: the store goes away, the leader is paused or dies, everybody is restarted.

stopped   the server is stopped in an orderly way, and comes back
crashed   it ends at once, as when it crashes, and comes back
rolling   the nodes are stopped and started again, one after the other
killed    the leader's processes are killed: how long until another one leads?
paused    the leader's control process is stopped (SIGSTOP) while it writes a decision, and goes on seconds later

`python -m benchmarks.cluster --scene rolling` does one; `python -m benchmarks.prove --only cluster` keeps results.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import httpx

from benchmarks.accounts import Allowed, Known, audit, shipped
from benchmarks.calling import Calling, calling
from benchmarks.cluster_nodes import LEADS, leader, leads, ledger_held, members, stopped
from benchmarks.node_config import ENDPOINT, EXPERIMENT
from benchmarks.nodes import Node, running, settled
from benchmarks.processes import prepare
from benchmarks.results_file import Case
from gateway.store.open import open_store

if TYPE_CHECKING:
    from tests.postgres import PostgresServer, Stop

CODE = (
    "gateway/**/*.py",
    "gateway/**/*.sql",
    *(f"benchmarks/{name}.py" for name in ("cluster", "accounts", "callers")),
)
CATCH_UP = 180.0
_NOTHING = Allowed(several_nodes=True)


def measure(scene: str, folder: Path, seconds: float, seed: int = 1) -> Case:
    """One scene by its name in the head of this module."""
    return _SCENES[scene](folder, seconds, seed)


@dataclass(slots=True)
class Stage:
    """Nodes under load, and what is done to them."""

    nodes: list[Node]
    server: PostgresServer
    callers: Calling

    def store_away(self, seconds: float, how: Stop) -> Case:
        """The server is away for so long; nobody who asks notices."""
        self.server.stop(how)
        log, until = self.callers.log, time.monotonic() + seconds
        answered, told = len(log.answered), False
        while time.monotonic() < until:
            self.callers.more(20)
            told |= not any(node.status()["store"]["ok"] for node in self.nodes)
        answered, known = len(log.answered) - answered, Known.of(log)
        self.server.start()
        catch_up = settled(lambda: shipped(known, self.nodes[0]), "the store did not catch up", CATCH_UP)
        leader(self.nodes)
        figures = {"outage_s": seconds, "catch_up_s": round(catch_up, 2), "answered_during": answered}
        return {how: {**figures, "store_told_down": told}}

    def restarted(self, pause: float) -> Case:
        """Every node is told to leave and comes back, with so many seconds between two."""
        for node in self.nodes:
            assert node.stop() == 0
            self.callers.more(50)
            node.start()
            node.await_ready()
            until = time.monotonic() + pause
            while time.monotonic() < until:
                self.callers.more(20)
        return {"restarted": len(self.nodes), "failed_by_restarts": dict(self.callers.log.failed)}

    def leader_killed(self, times: int) -> Case:
        """Whoever leads is killed, with all its processes, so often."""
        took = []
        for _ in range(times):
            first = leader(self.nodes)
            self.callers.more(100)
            first.kill_all()
            others = [node for node in self.nodes if node is not first]
            took.append(round(settled(lambda: leads(others) is not None, "nobody led", LEADS), 2))  # noqa: B023
            first.start()
            first.await_ready()
        return {"fail_over_s": took}


def staged(folder: Path, seed: int, acts: Sequence[Callable[[Stage], Case]], killed: int = 0) -> Case:
    """One act after the other on the same nodes, under load; `killed` is how often a worker of them is."""
    with members(folder) as (nodes, server), running(*nodes):
        with _calling(nodes, seed) as callers:
            leader(nodes)
            callers.more(300)
            told: Case = {}
            for act in acts:
                told |= act(Stage(nodes, server, callers))
                callers.more(300)
        return _account(nodes, callers, told, Allowed(uncompleted=killed, several_nodes=True), unanswered=killed > 0)


def leader_paused(folder: Path, seconds: float, seed: int) -> Case:
    """The leader's control process is stopped while it writes a decision: it holds the lease's row, and the ledger.

    Somebody else must lead within seconds, decide, and be the only one who has; whoever wakes up must not be heard.
    """
    with members(folder) as (nodes, _):
        for node in nodes:
            _decides(node.document)
        with running(*nodes):
            first = leader(nodes)
            others = [node for node in nodes if node is not first]
            with ledger_held(nodes[0]) as held, _calling(nodes, seed, outcomes=1.0, value=_prediction) as callers:
                settled(held.awaited, "nobody wanted to decide", LEADS)
                said = len(first.log)
                with stopped(first):
                    began = time.monotonic()
                    held.let_go()
                    fail_over = settled(lambda: leads(others) is not None, "nobody else led", LEADS)
                    settled(lambda: _decisions(nodes[0]) != [], "nobody decided", LEADS)
                    decided = time.monotonic() - began
                    while time.monotonic() < began + seconds:
                        callers.more(20)
                settled(lambda: all(map(_rolled_back, nodes)), "not everybody has heard of it", LEADS)
                callers.more(300)
            decisions, woke = _decisions(nodes[0]), first.log[said:]
            told = {"paused_s": seconds, "fail_over_s": round(fail_over, 2), "decided_after_s": round(decided, 2)}
            case = _account(nodes, callers, {**told, "decisions": decisions}, Allowed(moved=True, several_nodes=True))
    if decisions != ["rollback"]:
        case["problems"]["not one decision"] = decisions
    if "the store failed" not in woke:
        case["problems"]["whoever woke up was not refused"] = [woke[-500:]]
    return {**case, "pass": not case["problems"]}


def _prediction(prediction: float) -> float:
    """What the challenger answers is greater, and that is worse."""
    return prediction


def _calling(nodes: Sequence[Node], seed: int, **more: Any) -> Calling:
    return calling([node.port for node in nodes], seed, **more)


def _decides(made: dict[str, Any]) -> None:
    """An experiment that ends by itself."""
    made["endpoints"][ENDPOINT]["experiment"] |= {"guardrails": [], "automation": "full"}


def _decisions(node: Node) -> list[str]:
    """What the ledger says of the experiment's end."""
    with closing(open_store(node.store_url, read_only=True)) as store:
        kinds = [row.kind for row in store.ledger(experiment=EXPERIMENT)]
    return [kind for kind in kinds if kind in ("promote", "rollback", "inconclusive", "advance")]


def _rolled_back(node: Node) -> bool:
    try:
        return bool(node.status()["endpoints"][ENDPOINT]["status"] == "rolled_back")
    except httpx.HTTPError:
        return False


def _account(
    nodes: Sequence[Node], callers: Calling, told: Case, allowed: Allowed = _NOTHING, *, unanswered: bool = False
) -> Case:
    """Everybody is stopped, and the store held against what the clients know; `unanswered` requests are allowed."""
    log = callers.stop()
    settled(lambda: shipped(Known.of(log), nodes[0]), "not everything was shipped", CATCH_UP)
    codes = [node.stop() for node in nodes]
    result = audit(log, nodes[0], allowed)
    problems = result["problems"]
    if any(codes):
        problems["nodes ended with"] = codes
    if log.failed and not unanswered:
        problems["requests that were not answered"] = [dict(log.failed)]
    return {**told, **result, "pass": not problems}


def _one(act: Callable[[Stage, float], Case]) -> Callable[[Path, float, int], Case]:
    return lambda folder, seconds, seed: staged(folder, seed, [lambda stage: act(stage, seconds)])


def _killed(folder: Path, times: float, seed: int) -> Case:
    return staged(folder, seed, [lambda stage: stage.leader_killed(int(times))], killed=int(times))


_SCENES: dict[str, Callable[[Path, float, int], Case]] = {
    "stopped": _one(lambda stage, seconds: stage.store_away(seconds, "fast")),
    "crashed": _one(lambda stage, seconds: stage.store_away(seconds, "immediate")),
    "rolling": _one(lambda stage, seconds: stage.restarted(seconds)),
    "killed": _killed,
    "paused": leader_paused,
}
SCENES = tuple(_SCENES)


@click.command()
@click.option("--scene", type=click.Choice(SCENES), default="stopped", show_default=True)
@click.option("--seconds", default=10.0, show_default=True, help="Of the scene `killed` how often.")
@click.option("--seed", default=1, show_default=True)
def main(scene: str, seconds: float, seed: int) -> None:
    """One scene, and what has become of every fact."""
    prepare()
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder:
        case = measure(scene, Path(folder), seconds, seed)
    click.echo(json.dumps(case, indent=1))
    raise SystemExit(not case["pass"])


if __name__ == "__main__":
    main()
