"""Start a real gateway in a temporary folder, tell one story with it, stop it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import orjson

from gateway.demo import replay
from gateway.demo.scenarios import SCENARIOS, assets, write_config
from gateway.demo.story import Event, Story, StoryError

START_WITHIN = 30.0  # seconds
WORKERS = 2  # as in the demo's config


async def tell(scenario: str, seed: int) -> AsyncIterator[Event]:
    """The events of one run, from start to result."""
    chosen = SCENARIOS[scenario]
    flights = replay.load(assets() / "models" / "flight_delay" / "replay.npz", seed)
    with tempfile.TemporaryDirectory(prefix="gateway-demo-") as folder:
        config = write_config(chosen, Path(folder))
        async with running_gateway(config) as addresses:
            yield {
                "event": "start",
                "scenario": scenario,
                "seed": seed,
                "challenger": chosen.challenger,
                "story": chosen.story,
                "flights": len(flights),
                "pid": addresses["pid"],
                "data": addresses["data"],
                "admin": addresses["admin"],
                "metrics": addresses["metrics"],
            }
            story = Story(addresses["data"], addresses["admin"], flights, seed)
            async for event in story.run():
                yield event


@asynccontextmanager
async def running_gateway(config: Path) -> AsyncIterator[dict[str, str]]:
    """`gateway serve` as a process of its own; yields the addresses that it listens on."""
    log_path = config.with_name("gateway.log")
    process = _start(config, log_path)
    try:
        yield await _addresses(process, config.parent / "data" / "node.json", log_path)
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(_reap, process)


def _start(config: Path, log_path: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(config), "--shutdown-delay", "0"]
    with log_path.open("wb") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _reap(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(20.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def _addresses(process: subprocess.Popen[bytes], node: Path, log: Path) -> dict[str, str]:
    """Wait until every worker serves; an early end is reported with the gateway's own words."""
    deadline = time.monotonic() + START_WITHIN
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StoryError(f"the gateway ended with {process.returncode}:\n{_words(log)}")
        addresses = _node(node)
        if addresses is not None and await _ready(addresses["admin"]):
            return addresses
        await asyncio.sleep(0.05)
    raise StoryError(f"the gateway was not ready within {START_WITHIN:.0f} s:\n{_words(log)}")


def _node(path: Path) -> dict[str, str] | None:
    try:
        return {key: str(value) for key, value in orjson.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        return None


def _words(log: Path) -> str:
    """The end of the gateway's log."""
    return log.read_text(errors="replace")[-3000:]


async def _ready(admin: str) -> bool:
    """Whether the release runs and every worker serves its plan."""
    try:
        async with httpx.AsyncClient(base_url=f"http://{admin}", trust_env=False, timeout=1.0) as client:
            status = (await client.get("/api/status")).json()
    except httpx.HTTPError:
        return False
    workers = status["workers"]
    return len(workers) == WORKERS and all(w["plan_revision"] == status["plan_revision"] for w in workers)
