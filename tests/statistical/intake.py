"""T13: values that are none, posted to a real worker for one arm only, then shipped, joined and judged."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.stats_common import Measured
from gateway.assignment.hashing import bucket
from gateway.evidence.definition import Definition, MetricDefinition
from gateway.evidence.engine import Engine
from gateway.evidence.verdict import judge
from gateway.store.base import PlanRow
from gateway.store.sqlite import SqliteStore
from tests.integration.serving.local_worker import LocalWorker, challenger, champion, endpoint, local_worker, plan
from tests.statistical.rig import SECOND, THRESHOLDS, Trapped

BAD: dict[str, str] = {
    "NaN": "NaN",
    "infinite": "Infinity",
    "too large for a float": "1e999",
    "out of bounds": "1.5",
    "a string": '"0.5"',
    "nothing": "null",
}
# What is not JSON is refused before anybody looks whose it is; the rest is counted under the variant.
NOT_JSON = frozenset(("NaN", "infinite", "too large for a float"))
UNITS, ONE_IN = 900, 3
DEFINITION = Definition(
    id="exp-1",
    endpoint="flight",
    champion="logistic",
    challengers=("boosted",),
    metrics=(
        MetricDefinition(
            name="brier", type="bounded", source="outcome", increase=False, missing="exclude", window_us=60 * SECOND
        ),
        MetricDefinition(name="errors", type="binary", source="gateway", increase=False, margin=0.01),
    ),
    objective="brier",
    expected_effect=0.1,
    min_effect=0.0,
    segments=("origin",),
    segment_values=(("EWR", "JFK"),),
    answer_within_us=10 * SECOND,
)


class Served:
    """A worker at a split of 50 %, and what the control plane makes of its spools."""

    def __init__(self, worker: LocalWorker, folder: Path) -> None:
        self._worker = worker
        self.store = SqliteStore(folder / "gateway.db")
        self._engine = Engine(worker.data_dir / "spool", self.store, worker.clock)
        self.refusals: Counter[tuple[str, int]] = Counter()
        self.refused: Counter[str] = Counter()

    async def start(self) -> None:
        given = endpoint(champion(), challenger(), share=0.5)
        await self._worker.publish(plan(given))
        slots = json.dumps({"flight": [(slot.start, slot.variant) for slot in given.slots]})
        with self.store.transaction():
            self._engine.start(DEFINITION)
            self.store.add_plan(PlanRow(1, 0, 0, "", "{}", slots))

    async def unit(self, user: int, value: str | None) -> str:
        """One request, and the post about it. Returns the variant."""
        reply = await self._worker.infer(f"user-{user}")
        assert reply.status == 200
        self._worker.clock.advance(0.01)
        if value is not None:
            token = reply.headers["x-gateway-decision"]
            body = f'{{"decision": "{token}", "metric": "brier", "value": {value}}}'
            answer = await self._worker.request(path="/v1/outcomes", body=body.encode())
            self.refusals[value, answer.status] += 1
        return self.variant(user)

    def variant(self, user: int) -> str:
        table = self._worker.worker.app.table
        assert table is not None
        known = table.endpoints["flight"]
        return str(known.draw(bucket(known.key, f"user-{user}".encode())).name)

    def judged(self) -> tuple[dict[str, bytes], Any, dict[tuple[str, str], int]]:
        while self._engine.step():
            pass
        evidence = self._engine.evidence["exp-1"]
        report = judge(evidence, THRESHOLDS, self._engine.units("exp-1"), self._engine.folded("exp-1"))
        return dict(self.store.evidence("exp-1")), report, self.store.counters("exp-1")


async def _served(seed: int, *, post_bad: bool) -> Any:
    """A third of the challenger's posts are bad, of every kind; or are not sent at all."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "worker").mkdir()
        async with local_worker(Path(folder) / "worker") as worker:
            served = Served(worker, Path(folder))
            await served.start()
            kinds = list(BAD.values())
            for user in range(UNITS):
                good, bad = f"{rng.random():.6f}", rng.random() < 1 / ONE_IN
                if not bad or served.variant(user) == "logistic":
                    await served.unit(user, good)
                else:
                    await served.unit(user, kinds[user % len(kinds)] if post_bad else None)
            for _ in range(3):
                worker.clock.advance(30.0)
                await worker.worker.poll()
            judged = served.judged()
            served.store.close()
            return served.refusals, judged


def t13(runs: int, seed: int) -> Trapped:
    kinds = {value: kind for kind, value in BAD.items()}
    other = silent = accepted = miscounted = 0
    for run in range(runs):
        refusals, (states, report, counters) = asyncio.run(_served(seed + run, post_bad=True))
        _, (without, _, _) = asyncio.run(_served(seed + run, post_bad=False))
        other += states != without
        silent += not report.sample_ratio_alarm
        accepted += sum(n for (value, status), n in refusals.items() if value in kinds and not 400 <= status < 500)
        countable = sum(n for (value, _), n in refusals.items() if value in kinds and kinds[value] not in NOT_JSON)
        miscounted += counters != {("boosted", "rejected"): countable}
    return [
        Measured("T13", "bad values that were not answered with 4xx", float(accepted), 0.0, runs),
        Measured("T13", "runs in which they changed the evidence", float(other), 0.0, runs),
        Measured("T13", "runs in which refusals are not counted under their variant", float(miscounted), 0.0, runs),
        Measured("T13", "runs without an alarm about what is missing in one arm", float(silent), 0.0, runs),
    ]
