"""One run of the demo as a stream of events: what the terminal shows and `--json` prints.

The client sends blocks of flights and waits until each block is folded and every worker serves the plan that
follows from it; so the path of the split depends on the seed, not on the speed of the machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx

from gateway.demo.replay import Flights
from gateway.demo.scenarios import ENDPOINT
from gateway.demo.traffic import Client
from gateway.errors import GatewayError

BLOCK = 400  # flights sent at once: with a window of one second about 280 flights a second
AFTER = 200  # flights sent after the decision, to see that it holds
PATIENCE = 30.0  # seconds without any progress before the demo gives up
_POLL = 0.05
_KINDS = {"promoted": "promote", "rolled_back": "rollback", "inconclusive": "inconclusive"}
Event = dict[str, Any]


class StoryError(GatewayError):
    """The demo cannot go on; the message says what it waited for."""


@dataclass(slots=True)
class Story:
    """Drives one gateway from outside until its experiment has ended."""

    data: str
    admin: str
    flights: Flights
    seed: int

    async def run(self) -> AsyncIterator[Event]:
        client = Client(self.data, self.flights, self.seed)
        started = time.monotonic()
        stage = ""
        async with httpx.AsyncClient(base_url=f"http://{self.admin}", trust_env=False) as admin:
            try:
                status = await self._status(admin)
                for first in range(0, len(self.flights), BLOCK):
                    block = range(first, min(first + BLOCK, len(self.flights)))
                    stage = _experiment(status)["stage"]
                    await client.report(await client.send(block))
                    status = await self._settled(admin, block.stop)
                    yield _progress(status, client, time.monotonic() - started)
                    if _endpoint(status)["status"] != "running":
                        break
                status = await self._ended(admin)
                decision = (await _decisions(admin))[-1]
                yield {"event": "decision", "kind": decision["kind"], "text": decision["body"]["text"]}
                # The split has moved; the users do not notice.
                await client.report(await client.send(range(min(AFTER, len(self.flights)))))
                yield _result(status, stage, client, time.monotonic() - started, decision)
            finally:
                await client.close()

    async def _settled(self, admin: httpx.AsyncClient, sent: int) -> dict[str, Any]:
        """Wait until everything that was sent is folded, decided upon and served."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            status = await self._status(admin)
            if _endpoint(status)["status"] != "running":
                return status
            experiment = _experiment(status)
            folded = (experiment["report"] or {}).get("folded", 0)
            waits = (experiment["next"] or {}).get("reason") == "promotion_waits"
            if folded >= sent and not waits and _converged(status):
                return status
            await asyncio.sleep(_POLL)
        raise StoryError(f"the gateway did not fold {sent} units within {PATIENCE:.0f} s")

    async def _ended(self, admin: httpx.AsyncClient) -> dict[str, Any]:
        """Wait for the decision, and until every worker serves its plan."""
        deadline = time.monotonic() + PATIENCE + 60.0
        while time.monotonic() < deadline:
            status = await self._status(admin)
            if _endpoint(status)["status"] != "running" and _converged(status):
                return status
            await asyncio.sleep(_POLL)
        raise StoryError("the gateway came to no decision")

    @staticmethod
    async def _status(admin: httpx.AsyncClient) -> dict[str, Any]:
        """The status; a control process that is being restarted is waited for."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                answer = await admin.get("/api/status")
                document: dict[str, Any] = answer.raise_for_status().json()
                return document
            except httpx.HTTPError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_POLL)


async def _decisions(admin: httpx.AsyncClient) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (await admin.get("/api/decisions")).raise_for_status().json()["decisions"]
    return rows


def _endpoint(status: dict[str, Any]) -> dict[str, Any]:
    endpoint: dict[str, Any] = status["endpoints"][ENDPOINT]
    return endpoint


def _experiment(status: dict[str, Any]) -> dict[str, Any]:
    experiment: dict[str, Any] = _endpoint(status)["experiment"]
    return experiment


def _converged(status: dict[str, Any]) -> bool:
    workers = status["workers"]
    return bool(workers) and all(w["plan_revision"] == status["plan_revision"] for w in workers)


def _progress(status: dict[str, Any], client: Client, seconds: float) -> Event:
    endpoint = _endpoint(status)
    return {
        "event": "progress",
        "seconds": round(seconds, 2),
        "sent": client.sent,
        "failed": client.failed,
        "endpoint": endpoint,
    }


def _result(status: dict[str, Any], stage: str, client: Client, seconds: float, decision: dict[str, Any]) -> Event:
    endpoint = _endpoint(status)
    champion, challenger = _experiment(status)["report"]["assigned"]
    units = champion + challenger
    return {
        "event": "result",
        "decision": _KINDS[endpoint["status"]],
        "stage": stage,
        "units": units,
        "harmed_share": round(challenger / units, 6) if units else 0.0,
        "challenger_units": challenger,
        "champion": endpoint["champion"],
        "split": endpoint["split"],
        "reason": decision["body"]["reason"],
        "failed_requests": client.failed,
        "seconds": round(seconds, 2),
    }
