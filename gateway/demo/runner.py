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
import msgspec

from gateway.demo import replay
from gateway.demo.scenarios import SCENARIOS, assets, write_config
from gateway.demo.story import Event, Story, StoryError

START_WITHIN = 30.0  # seconds


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
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway.cli", "serve", "--config", str(config), "--shutdown-delay", "0"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield await _addresses(process, config.parent / "data" / "node.json", log_path)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(process.wait, 20.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _addresses(process: subprocess.Popen[bytes], node: Path, log: Path) -> dict[str, str]:
    """Wait until every worker serves; an early end is reported with the gateway's own words."""
    deadline = time.monotonic() + START_WITHIN
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StoryError(f"the gateway ended with {process.returncode}:\n{log.read_text()}")
        if node.exists():
            addresses: dict[str, str] = msgspec.json.decode(node.read_bytes(), type=dict[str, str | int])
            if await _ready(addresses["admin"]):
                return addresses
        await asyncio.sleep(0.05)
    raise StoryError(f"the gateway was not ready within {START_WITHIN:.0f} s:\n{log.read_text()}")


async def _ready(admin: str) -> bool:
    try:
        async with httpx.AsyncClient(base_url=f"http://{admin}", trust_env=False, timeout=1.0) as client:
            status = (await client.get("/api/status")).json()
    except httpx.HTTPError:
        return False
    workers = status["workers"]
    return len(workers) == 2 and all(worker["plan_revision"] for worker in workers)
