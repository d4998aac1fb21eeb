"""What the control process pays for facts: shipped, joined, folded, into a store that is small or large.

Facts are written by the worker's own writer, in the order and at the rate of a busy node; only the rounds of the
controller are timed, in CPU time of this process. Where the store is a server, its own time is in the wall time alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.bench_control import CASES, WARM, Case, opened
from benchmarks.control_node import OUTCOME, Node, Users, Worker
from benchmarks.rounds import Figures

REQUESTS = 1000  # of a round
READ, COMMIT = "read, decode", "commit"
RECORD = ("assignments", "completions", "outcomes", "admission")
NEW = Case(users=0, objective=OUTCOME, window="2s", posted=True)
FACTS_OF_NEW = 3  # assignment, completion, outcome


class Growth(NamedTuple):
    """What a fact costs at a size of the store, in microseconds."""

    facts: int
    cpu_us: float
    wall_us: float
    stages: dict[str, float]  # of the CPU time


def shipped(rounds: int, behind: int = 1, store: str = "") -> Figures:
    """Facts without an experiment, of so many rounds of traffic; `behind` of them are read at once."""
    case = CASES["fixed split"]
    with opened(case, store) as (node, worker):
        users = iter(Users(case.users))
        for number in range(WARM + rounds):
            for _ in range(behind):
                worker.serve(users, REQUESTS, node.slots(), node.controller.plan_revision)
            _round(node, worker, forget=number == WARM)
        facts = 2 * REQUESTS * rounds * behind
        each = {stage: ns / 1e3 / facts for stage, ns in node.laps.ns.items()}
        read, commit = each.pop(READ), each.pop(COMMIT)
        record = sum(each.pop(stage, 0.0) for stage in RECORD)
        return {
            "facts_per_s": 1e6 / (read + record + commit),
            "facts_per_s_all": 1e9 * facts / node.laps.wall_ns,  # with everything else that a round does
            "us_read": read,
            "us_record": record,
            "us_commit": commit,
            "us_rest": sum(each.values()),
        }


def requests(name: str, rounds: int, store: str = "") -> Figures:
    """Microseconds of a request, by stage and in all, for one kind of traffic of `bench_control`."""
    case = CASES[name]
    warm = WARM + case.users // REQUESTS  # every user has voted
    with opened(case, store) as (node, worker):
        users = iter(Users(case.users))
        for number in range(warm + rounds):
            worker.serve(users, REQUESTS, node.slots(), node.controller.plan_revision)
            if case.posted:
                worker.post(REQUESTS)
            _round(node, worker, forget=number == warm)
        each = {f"us_{stage}": ns / 1e3 / (rounds * REQUESTS) for stage, ns in sorted(node.laps.ns.items())}
        return {**each, "us": sum(each.values()), "us_wall": node.laps.wall_ns / 1e3 / (rounds * REQUESTS)}


def growth(sizes: tuple[int, ...], rounds: int, store: str = "") -> Iterator[Growth]:
    """What a fact costs once there are so many, ascending: every request is a new user's, who votes, with an outcome.

    Between two sizes the store grows in the same way.
    """
    with opened(NEW, store) as (node, worker):
        users, facts = iter(Users(0)), 0
        for size in sizes:
            while facts < size:
                number = min(REQUESTS, (size - facts) // FACTS_OF_NEW + 1)
                facts += _served(node, worker, users, number)
            node.laps.ns.clear()
            node.laps.wall_ns = 0
            measured = sum(_served(node, worker, users, REQUESTS // 2) for _ in range(rounds))
            facts += measured
            stages = {stage: ns / 1e3 / measured for stage, ns in sorted(node.laps.ns.items())}
            yield Growth(size, sum(stages.values()), node.laps.wall_ns / 1e3 / measured, stages)


def _served(node: Node, worker: Worker, users: Iterator[tuple[int, bytes]], number: int) -> int:
    worker.serve(users, number, node.slots(), node.controller.plan_revision)
    worker.post(number)
    _round(node, worker, forget=False)
    return FACTS_OF_NEW * number


def _round(node: Node, worker: Worker, *, forget: bool) -> None:
    worker.heartbeat()
    if forget:
        node.laps.ns.clear()
        node.laps.wall_ns = 0
    node.tick()
