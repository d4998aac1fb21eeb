"""Fifty experiments of four variants, three metrics and twenty segments: what `/metrics` has to say at the most."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from gateway.clock import SystemClock
from gateway.config.load import load
from gateway.control_plane import ControlPlane
from gateway.evidence.report import Estimate
from gateway.worker import Worker
from tests.unit.release.configs import experiment, write

EXPERIMENTS, SEGMENTS = 50, 20


@asynccontextmanager
async def fifty_experiments(folder: Path) -> AsyncIterator[tuple[ControlPlane, Worker]]:
    """With every counter of a worker, and nothing estimated yet."""
    path = write(folder, **{f"rank-{number}": _large(number) for number in range(EXPERIMENTS)})
    plane, worker = ControlPlane(load(path), SystemClock()), None
    try:
        worker = Worker(load(path).config.data_dir, 1, SystemClock())
        await worker.poll()
        plane.poll()
        yield plane, worker
    finally:
        plane.close()
        if worker is not None:
            await worker.close()


def estimate_all(plane: ControlPlane) -> None:
    """As if everything had been seen, of every segment."""
    segments = ["", *(f"market=market-{number}" for number in range(SEGMENTS))]
    estimates = tuple(
        Estimate(
            challenger=challenger,
            metric=metric,
            segment=segment,
            increase=True,
            units=(10**6, 10**6),
            lower=-0.01234567890123,
            estimate=0.001234567890123,
            upper=0.02345678901234,
            better=False,
        )
        for challenger in "bcd"
        for metric in ("score", "errors", "latency")
        for segment in segments
    )
    for name in plane.controller.loaded.config.endpoints:
        run = plane.controller.run(plane.controller.states[name].experiment)
        assert run.report is not None
        run.report = msgspec.structs.replace(run.report, estimates=estimates)


def _large(number: int) -> dict[str, Any]:
    endpoint = experiment(f"experiment-{number}", "a", "b", "c", "d")
    values = [f"market-{n}" for n in range(SEGMENTS)]
    endpoint["segments"] = {"market": {"from": "header:x-market", "values": values}}
    endpoint["metrics"]["latency"] = {"type": "latency", "limit": "250ms", "direction": "decrease", "source": "gateway"}
    endpoint["experiment"]["guardrails"].append({"metric": "latency", "margin": 0.05})
    return endpoint
