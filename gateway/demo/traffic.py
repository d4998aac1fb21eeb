"""The client of the demo: sends flights as requests, and posts later what became of them.

It knows the gateway only from outside: a data port, tokens in answers, a status page. It is as blind to variants as any
application.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from gateway.backends.base import Request
from gateway.backends.http import HttpBackend
from gateway.demo.replay import Flights
from gateway.demo.scenarios import ENDPOINT
from gateway.errors import BackendError, GatewayError

CONCURRENCY = 16
TIMEOUT = 10.0  # seconds for one request
_TARGET = f"/v2/models/{ENDPOINT}/infer".encode()
_JSON = (b"content-type", b"application/json")


class TrafficError(GatewayError):
    """The gateway did not take an outcome."""


@dataclass(slots=True)
class Prediction:
    """An answer that a user got, to be scored when the flight has landed."""

    flight: int
    probability: float
    token: str


class Client:
    """Real HTTP requests over kept-alive connections."""

    def __init__(self, address: str, flights: Flights, seed: int) -> None:
        self._backend = HttpBackend(f"http://{address}", max_connections=CONCURRENCY)
        self._flights = flights
        self._seed = seed
        self.sent = 0
        self.failed = 0

    async def send(self, indices: Iterable[int]) -> list[Prediction]:
        """Send flights in order, `CONCURRENCY` at a time; failures are counted, never raised."""
        waiting = iter(indices)
        predictions: list[Prediction] = []

        async def user() -> None:
            for index in waiting:
                prediction = await self._ask(index)
                if prediction is not None:
                    predictions.append(prediction)

        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENCY):
                group.create_task(user())
        return predictions

    async def report(self, predictions: list[Prediction]) -> None:
        """Post the outcomes of flights that have landed."""
        if not predictions:
            return
        outcomes = [
            {"decision": p.token, "metric": "brier", "value": self._flights.score(p.flight, p.probability)}
            for p in predictions
        ]
        request = Request(b"POST", b"/v1/outcomes", [_JSON], orjson.dumps(outcomes))
        answer = await self._backend.call(request, self._deadline())
        if answer.status != 200:
            raise TrafficError(f"outcomes were refused: {answer.status} {answer.body.decode()[:300]}")

    async def close(self) -> None:
        await self._backend.close()

    async def _ask(self, index: int) -> Prediction | None:
        headers = [
            _JSON,
            # The request is the unit, so its id decides the variant: the same seed draws the same split.
            (b"x-request-id", b"%d-%d" % (self._seed, index)),
            (b"x-origin", self._flights.origin[index].encode()),
        ]
        self.sent += 1
        try:
            request = Request(b"POST", _TARGET, headers, self._flights.request(index))
            answer = await self._backend.call(request, self._deadline())
        except BackendError:
            self.failed += 1
            return None
        if answer.status != 200:
            self.failed += 1
            return None
        probability = orjson.loads(answer.body)["outputs"][0]["data"][0]
        return Prediction(index, probability, dict(answer.headers)[b"x-gateway-decision"].decode())

    @staticmethod
    def _deadline() -> float:
        return asyncio.get_running_loop().time() + TIMEOUT
