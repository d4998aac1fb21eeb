"""What `prove` runs of kills, outages and clusters, and what it holds against the goal that nothing is lost."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import cluster, kills, outage
from benchmarks.results_file import Case
from benchmarks.stats_common import Measured

FAIL_OVER = 10.0  # seconds until another node leads
LEAST_KILLS = 200
CAUGHT_UP = 60.0  # seconds after a minute without a store
_LOST = {
    "answered inferences that are not in the store": ("answered, and not in the store",),
    "acknowledged outcomes that are not in the store": ("acknowledged, and not in the store",),
    "facts in the store that nobody has sent": ("in the store, and never asked", "in the store, and never sent"),
    "units that were given two variants": ("units with two variants", "assigned otherwise than the plan says"),
}


class Proof(NamedTuple):
    """One long proof: its cases by key, and what is asked of all of them together."""

    name: str
    code: tuple[str, ...]
    cases: Mapping[str, Callable[[Path], Case]]
    goals: Callable[[Mapping[str, Case]], Iterator[Measured]]

    def measure(self, key: str) -> Case:
        """The case of a key, in a folder of its own."""
        with tempfile.TemporaryDirectory(prefix=f"{self.name}-") as folder:
            return self.cases[key](Path(folder))


def _kill(seed: int) -> Callable[[Path], Case]:
    durability = ("disk", "process")[seed % 2]
    return lambda folder: kills.measure(folder, kills.KILLS, seed, durability)


def _kill_shared(seed: int) -> Callable[[Path], Case]:
    return lambda folder: kills.measure_shared(folder, kills.KILLS, seed)


def _endure(kind: str, seconds: float) -> Callable[[Path], Case]:
    def measured(folder: Path) -> Case:
        try:
            return outage.measure(kind, folder, seconds)
        except outage.NotHere as error:
            return {"skipped": str(error)}

    return measured


def _play(scene: str, amount: float, seed: int = 1) -> Callable[[Path], Case]:
    return lambda folder: cluster.measure(scene, folder, amount, seed)


def _kill_goals(cases: Mapping[str, Case]) -> Iterator[Measured]:
    killed = _sum(cases, lambda case: sum(case["kills"].values()))
    yield Measured("kills", "kill -9 of a process, or of all of a node at once", killed, LEAST_KILLS, 1, True)
    yield from _nothing_lost("kills", cases)
    lacking = _sum(cases, lambda case: case["uncompleted"])
    what = "answers without their completion, at most one for each killed worker"
    yield Measured("kills", what, lacking, _sum(cases, _workers_killed), len(cases))


def _workers_killed(case: Case) -> float:
    return float(case["kills"].get("worker", 0) + 2 * case["kills"].get("everybody", 0))


def _outage_goals(cases: Mapping[str, Case]) -> Iterator[Measured]:
    run = {key: case for key, case in cases.items() if "skipped" not in case}
    yield from _nothing_lost("outage", run, but_for_what_was_dropped=True)
    yield Measured("outage", "requests that were not answered", _unanswered(run), 0, len(run))
    for key, case in run.items():
        yield Measured("outage", f"seconds to catch up after {key}", case["catch_up_s"], CAUGHT_UP, 1)


def _cluster_goals(cases: Mapping[str, Case]) -> Iterator[Measured]:
    yield from _nothing_lost("cluster", cases)
    quiet = {key: case for key, case in cases.items() if not key.startswith("killed")}
    yield Measured("cluster", "requests that were not answered, but when a node was killed", _unanswered(quiet), 0, 1)
    for key, case in cases.items():
        for how in ("fast", "immediate"):
            if how in case:
                seconds = case[how]["catch_up_s"]
                yield Measured("cluster", f"seconds to catch up after {key}", seconds, CAUGHT_UP, 1)
    killed = [took for case in cases.values() for took in _list(case.get("fail_over_s", []))]
    yield Measured("cluster", "seconds until another node leads, the slowest", max(killed), FAIL_OVER, len(killed))
    paused = [case for case in cases.values() if "decisions" in case]
    decisions = max(len(case["decisions"]) for case in paused)
    yield Measured("cluster", "decisions where the leader was stopped in the midst of one", decisions, 1, len(paused))


def _nothing_lost(
    name: str, cases: Mapping[str, Case], *, but_for_what_was_dropped: bool = False
) -> Iterator[Measured]:
    """Four ways in which something could be wrong, and everything else that the accounts have found."""
    found = [case["problems"] for case in cases.values()]
    known = {kind for kinds in _LOST.values() for kind in kinds}
    suffix = ", but for those that were counted as dropped" if but_for_what_was_dropped else ""
    inferences, outcomes, *_ = _LOST
    of = {
        inferences: f" (of {_sum(cases, lambda case: case['answered']):,.0f}){suffix}",
        outcomes: f" (of {_sum(cases, lambda case: case['acknowledged']):,.0f})",
    }
    for what, kinds in _LOST.items():
        lost = sum(problems[kind][0] for problems in found for kind in kinds if kind in problems)
        yield Measured(name, what + of.get(what, ""), lost, 0, len(cases))
    other = sum(kind not in known for problems in found for kind in problems)
    what = "anything else: an answer stored otherwise, a broken chain, a damaged file"
    yield Measured(name, what, other, 0, len(cases))


def _unanswered(cases: Mapping[str, Case]) -> float:
    return _sum(cases, lambda case: sum(number for what, number in case["failed"].items() if what.startswith("ask: ")))


def _sum(cases: Mapping[str, Case], of: Callable[[Case], float]) -> float:
    return float(sum(map(of, cases.values())))


def _list(value: Any) -> list[float]:
    return value if isinstance(value, list) else [value]


KILLS = Proof(
    "kills",
    kills.CODE,
    {
        **{f"{kills.KILLS} kills, seed {seed}": _kill(seed) for seed in range(1, kills.ROUNDS + 1)},
        **{f"three nodes, {kills.KILLS} kills, seed {seed}": _kill_shared(seed) for seed in (5, 6)},
    },
    _kill_goals,
)
OUTAGE = Proof(
    "outage",
    outage.CODE,
    {
        f"{kind}, {seconds} s": _endure(kind, seconds)
        for kind, seconds in (("locked", 30), ("pinned", 30), ("full", 20), ("store-full", 20), ("faulty", 60))
    },
    _outage_goals,
)
CLUSTER = Proof(
    "cluster",
    cluster.CODE,
    {
        "store stopped, 60 s": _play("stopped", 60),
        "store crashed, 60 s": _play("crashed", 60),
        "rolling restart": _play("rolling", 5),
        "killed leaders, 5": _play("killed", 5),
        **{f"paused leader, 15 s, seed {seed}": _play("paused", 15, seed) for seed in range(1, 4)},
    },
    _cluster_goals,
)
