"""What the control process costs: ship, join, fold, judge, by stages; and what it costs when nothing happens.

`python -m benchmarks.bench_control` takes three minutes on one core. Facts are written by the worker's own writer, in
the order and at the rate of a busy node; only the ticks of the controller are timed, in CPU time of this process.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click

from benchmarks.control_node import ENDPOINT, ORIGINS, OUTCOME, TICK, Node, Users, Worker
from benchmarks.results_file import machine, revision
from benchmarks.stats_common import Measured

LIMIT_US = 20.0  # CPU of a request
FACTS = 120_000.0  # shipped in a second of one core
IDLE = 0.01  # of a core
EXPERIMENT = "b-vs-a"
WARM = 10  # ticks that are not counted: statements are prepared, pages read
STAGES = {
    "add_assignments": "assignments",
    "add_completions": "completions",
    "add_shadows": "completions",
    "add_outcomes": "outcomes",
    "exposures": "outcomes",
    "count": "votes",
    "known_units": "look-ups",
    "plan_slots": "votes",
    "vote_count": "votes",
    "save_units": "units",
    "add_revisits": "revisits",
    "add_votes": "votes",
    "request_errors": "fold",
    "request_latencies": "fold",
    "outcome_values": "fold",
    "save_cursor": "fold",
    "save_evidence": "fold",
    "save_stream": "admission",
    "add_step": "admission",
    "counters": "judge",
    "decisions_by_kind": "judge",
    "ledger": "judge",
}
SHIPPING = ("read, decode", "assignments", "completions", "admission", "commit")  # stages without an experiment


class Case(NamedTuple):
    """One kind of traffic."""

    users: int = 10_007  # who come again and again; 0: every request is a user of its own
    objective: str = ""  # "": a fixed split; "latency", or the outcome
    window: str = "1h"  # of an outcome: while it is open, later requests of a unit belong to its vote
    posted: bool = False  # an outcome for every request


CASES = {
    "fixed split": Case(),
    "gateway metrics": Case(objective="latency"),
    "outcome metric": Case(objective=OUTCOME),
    "outcomes posted": Case(objective=OUTCOME, posted=True),
    "every user new": Case(users=0, objective=OUTCOME, window="2s"),
}


@click.command()
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the results here as well.")
@click.option("--ticks", default=100, show_default=True, type=click.IntRange(min=1), help="Ticks of a round.")
@click.option("--requests", default=1000, show_default=True, type=click.IntRange(min=1), help="Requests of a tick.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(min=1), help="The middle one counts.")
@click.option("--only", type=click.Choice([*CASES, "idle"]), help="One case instead of all.")
def main(path: Path | None, ticks: int, requests: int, rounds: int, only: str | None) -> None:
    """Measure the control process and compare it with its budget."""
    document: dict[str, Any] = {"proof": "control", "revision": revision(), "machine": machine()}
    document |= {"ticks": ticks, "requests": requests, "rounds": rounds, "cases": {}, "goals": []}
    failed = 0
    for name in [only] if only else [*CASES, "idle"]:
        taken = [_idle(ticks) if name == "idle" else busy(CASES[name], ticks, requests) for _ in range(rounds)]
        middle = middle_of(taken)
        goals = _goals(name, middle, rounds)
        failed += sum(not goal.passed for goal in goals)
        document["cases"][name] = middle
        document["goals"] += [goal.record() for goal in goals]
        _say(name, middle, goals)
        if path is not None:
            path.write_text(json.dumps(document, indent=1) + "\n")
    raise SystemExit(1 if failed else 0)


def middle_of(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The round of the median, whole: its stages make up its sum. Of an even number the dearer one."""
    return sorted(rounds, key=lambda one: one["all"])[len(rounds) // 2]


def busy(case: Case, ticks: int, requests: int, store: str = "") -> dict[str, float]:
    """CPU microseconds of a request by stage, and in all; into the store of a URL, by default a file of its own."""
    warm = WARM + case.users // requests
    with opened(case, store) as (node, worker):
        users = iter(Users(case.users))
        for tick in range(warm + ticks):
            worker.serve(users, requests, node.slots(), node.controller.plan_revision)
            if case.posted:
                worker.post(requests)
            _tick(node, worker, warm == tick)
    each = {stage: ns / 1e3 / (ticks * requests) for stage, ns in sorted(node.laps.ns.items())}
    return {**each, "all": sum(each.values())}


def _idle(ticks: int) -> dict[str, float]:
    """Shares of a core, by stage, while nothing comes but heartbeats."""
    with opened(CASES["outcome metric"]) as (node, worker):
        worker.serve(iter(Users(0)), 2000, node.slots(), node.controller.plan_revision)
        for tick in range(WARM + ticks):
            node.clock.advance(TICK)
            _tick(node, worker, tick == WARM)
    share = {stage: ns / 1e9 / (ticks * TICK) for stage, ns in sorted(node.laps.ns.items())}
    return {**share, "all": sum(share.values())}


def _tick(node: Node, worker: Worker, first: bool) -> None:
    """One round of the loop; the first that counts forgets those before."""
    worker.heartbeat()
    if first:
        node.laps.ns.clear()
    node.tick()


@contextmanager
def opened(case: Case, store: str = "") -> Iterator[tuple[Node, Worker]]:
    """A node without traffic, and what writes facts for it."""
    with tempfile.TemporaryDirectory() as folder:
        node = Node(Path(folder) / "data", config(case), STAGES, store)
        worker = Worker(node.folder, node.clock, EXPERIMENT if case.objective else "")
        try:
            yield node, worker
        finally:
            worker.close()
            node.close()


def config(case: Case) -> dict[str, Any]:
    """One endpoint, two HTTP variants, one segment: a fixed split, or an experiment that decides nothing."""
    endpoint: dict[str, Any] = {
        "protocol": "http",
        "unit": {"from": "header:x-user-id", "otherwise": "request"},
        "segments": {"origin": {"from": "header:x-origin", "values": list(ORIGINS)}},
        "variants": {
            "a": {"role": "champion", "url": "http://127.0.0.1:9"},
            "b": {"role": "challenger", "url": "http://127.0.0.1:10"},
        },
    }
    endpoint |= _experiment(case) if case.objective else {"traffic": {"a": "80%", "b": "20%"}}
    return {"version": 1, "data": {"listen": "127.0.0.1:8080"}, "data_dir": ".", "endpoints": {ENDPOINT: endpoint}}


def _experiment(case: Case) -> dict[str, Any]:
    """Errors and latency from the gateway; where outcomes decide, both are guardrails."""
    metrics: dict[str, Any] = {"errors": {"type": "binary"}, "latency": {"type": "latency", "limit": "250ms"}}
    for metric in metrics.values():
        metric |= {"direction": "decrease", "source": "gateway"}
    guardrails = [{"metric": "errors", "margin": 0.005}]
    if case.objective == OUTCOME:
        metrics[OUTCOME] = {"type": "bounded", "bounds": [0, 1], "direction": "decrease", "source": "outcome"}
        metrics[OUTCOME] |= {"window": case.window, "missing": "exclude"}
        guardrails.append({"metric": "latency", "margin": 0.02})
    return {
        "metrics": metrics,
        "experiment": {
            "id": EXPERIMENT,
            "objective": {"metric": case.objective, "min_effect": 0.01},
            "guardrails": guardrails,
            "stages": [{"traffic": "20%"}],
            "automation": "off",
        },
    }


def _goals(name: str, case: dict[str, float], rounds: int) -> list[Measured]:
    if name == "idle":
        return [
            Measured(
                "control",
                "share of a core that ticks take when idle (without ports and wake-ups)",
                case["all"],
                IDLE,
                rounds,
            )
        ]
    goals = [Measured("control", f"CPU µs of a request, {name}", case["all"], LIMIT_US, rounds)]
    if name == "fixed split":
        rate = 2e6 / sum(case[stage] for stage in SHIPPING)
        goals.append(Measured("control", "facts shipped in a second of one core", rate, FACTS, rounds, at_least=True))
    return goals


def _say(name: str, case: dict[str, float], goals: list[Measured]) -> None:
    unit, scale = ("% of a core", 100.0) if name == "idle" else ("µs a request", 1.0)
    stages = ", ".join(f"{stage} {value * scale:.2f}" for stage, value in case.items() if stage != "all")
    click.echo(f"{name}: {case['all'] * scale:.2f} {unit} ({stages})")
    for goal in goals:
        verdict, sign = ("met   " if goal.passed else "MISSED"), (">=" if goal.at_least else "<=")
        click.echo(f"{verdict} {goal.what}: {goal.value:.4g} (limit {sign} {goal.limit:g})")


if __name__ == "__main__":
    main()
