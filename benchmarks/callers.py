"""Clients who remember everything: what they asked, what was answered, which outcomes were acknowledged.

Users return all the time. An answered request may get outcomes at once, late, in batches, or none; what was not
acknowledged is posted again under the same id, and some of what was acknowledged is posted again as well, with the
same value or with another.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import struct
import time
from base64 import urlsafe_b64decode
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.client_log import Answered, Key, Log, Post, Refused
from benchmarks.node_config import ENDPOINT, METRIC

USERS = 2000
PATIENCE = 15.0  # seconds that an answer may take
CONFLICT_AFTER = 1.0  # seconds: what is read in one look at the spools has no order that a client could know
BATCH = 25  # outcomes
TRIES = 8  # of an outcome that is not acknowledged
ORIGINS = ("EWR", "JFK", "LGA")
FLIGHT = json.dumps(
    {"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 16], "data": [float(n) for n in range(16)]}]}
).encode()
_LENGTH = re.compile(rb"content-length: (\d+)")
_TOKEN = re.compile(rb"x-gateway-decision: ([^\r]+)")
_PREDICTED = re.compile(rb'"data":\[([^\]]+)\]')
_DECISION = struct.Struct(">BBQ")  # how a token begins: version, key, decision


class Caller:
    """One connection at a time to the first of the addresses that takes it, requests one after the other."""

    def __init__(
        self,
        addresses: Sequence[int],
        log: Log,
        seed: int,
        pause: float = 0.02,
        outcomes: float = 0.8,
        value: Callable[[float], float] | None = None,
    ) -> None:
        """`outcomes` is the share of answers that get one; `value` makes it of the prediction, by default by chance."""
        self._addresses = deque(addresses)
        self._log = log
        self._random = random.Random(seed)
        self._pause = pause
        self._outcomes = outcomes
        self._value = value or (lambda _: self._random.random())
        self._connected: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._batch: list[Post] = []
        self._later: deque[tuple[float, Post]] = deque()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await asyncio.sleep(self._random.expovariate(1 / self._pause))
                await self._round()
        finally:
            self._close()

    async def _round(self) -> None:
        if len(self._batch) >= BATCH:
            batch, self._batch = self._batch, []
            await self._post(batch, ndjson=self._random.random() < 0.5)
        elif self._later and self._later[0][0] <= time.monotonic():
            await self._post([self._later.popleft()[1]])
        else:
            await self._ask()

    async def _ask(self) -> None:
        user = self._random.randrange(USERS)
        headers = f"x-user-id: user-{user}\r\nx-origin: {ORIGINS[user % 3]}"
        self._log.asked[user] += 1
        sent = time.monotonic()
        try:
            head, body = await self._call(f"/v2/models/{ENDPOINT}/infer", headers, FLIGHT)
        except (OSError, EOFError, TimeoutError, Refused) as error:
            await self._missed(error, "ask")
            return
        token, predicted = _TOKEN.search(head), _PREDICTED.search(body)
        assert token, head
        assert predicted, body
        came = time.monotonic()
        decision = decision_of(token[1])
        assert decision not in self._log.answered, f"two requests of one decision: {decision}"
        self._log.answered[decision] = Answered(user, predicted[1], sent, came)
        self._log.slowest = max(self._log.slowest, came - sent)
        if self._random.random() < self._outcomes:
            await self._follow(token[1].decode(), decision, float(predicted[1]))

    async def _follow(self, token: str, decision: int, prediction: float) -> None:
        """What becomes of an answer: an outcome now, or with others, under an id of its own or under none."""
        id = "" if self._random.random() < 0.3 else f"{self._random.getrandbits(40):x}"
        post = Post(token, Key(decision, METRIC, id), round(self._value(prediction), 6))
        if self._random.random() < 0.5:
            self._batch.append(post)
        else:
            await self._post([post])

    async def _post(self, posts: list[Post], *, ndjson: bool = False) -> None:
        for post in posts:
            self._log.tried.setdefault(post.key, set()).add(post.value)
        documents = [json.dumps(_document(post)) for post in posts]
        kind = "application/x-ndjson" if ndjson else "application/json"
        text = "\n".join(documents) if ndjson else f"[{','.join(documents)}]" if len(documents) > 1 else documents[0]
        try:
            await self._call("/v1/outcomes", f"content-type: {kind}", text.encode())
        except (OSError, EOFError, TimeoutError, Refused) as error:
            self._again(posts)
            await self._missed(error, "post")
            return
        for post in posts:
            self._log.acknowledged.setdefault(post.key, post.value)
            self._repeat(post)

    def _again(self, posts: list[Post]) -> None:
        """Not acknowledged: whether they were kept nobody knows, so most are sent again under their ids."""
        for post in posts:
            if post.tries < TRIES and self._random.random() < 0.9:
                self._log.repeated["unsure"] += 1
                self._defer(post._replace(tries=post.tries + 1), 0.2)

    def _repeat(self, post: Post) -> None:
        chance = self._random.random()
        if post.tries > 1 or chance > 0.15:
            return
        if chance < 0.10:
            self._log.repeated["duplicate"] += 1
            self._defer(post._replace(tries=TRIES), 0.0)
        else:
            self._log.repeated["conflict"] += 1
            self._defer(post._replace(value=round(self._random.random(), 6), tries=TRIES), CONFLICT_AFTER)

    def _defer(self, post: Post, seconds: float) -> None:
        self._later.append((time.monotonic() + seconds, post))

    async def _missed(self, error: Exception, what: str) -> None:
        self._log.failed[f"{what}: {error if isinstance(error, Refused) else type(error).__name__}"] += 1
        self._close()
        self._addresses.rotate(-1)
        await asyncio.sleep(0.05)

    async def _call(self, path: str, headers: str, body: bytes) -> tuple[bytes, bytes]:
        """Head and body of a good answer. Raises Refused, OSError, EOFError or TimeoutError."""
        async with asyncio.timeout(PATIENCE):
            reader, writer = await self._connection()
            writer.write(
                f"POST {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            )
            writer.write(body)
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            answer = await reader.readexactly(int(length[1]) if length else 0)
        if b"connection: close" in head.lower():
            self._close()
        if not head.startswith(b"HTTP/1.1 200"):
            raise Refused(head[9:12].decode())
        return head, answer

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The open one, or the first that is to be had."""
        for _ in range(len(self._addresses)):
            if self._connected is not None:
                break
            try:
                self._connected = await asyncio.open_connection("127.0.0.1", self._addresses[0])
            except OSError:
                self._addresses.rotate(-1)
        if self._connected is None:
            raise ConnectionRefusedError
        return self._connected

    def _close(self) -> None:
        connected, self._connected = self._connected, None
        if connected is not None:
            connected[1].close()


def decision_of(token: bytes) -> int:
    """The decision that a token names."""
    _, _, decision = _DECISION.unpack_from(urlsafe_b64decode(token + b"=" * (-len(token) % 4)))
    return int(decision)


def _document(post: Post) -> dict[str, Any]:
    named = {"id": post.key.id} if post.key.id else {}
    return {"decision": post.token, "metric": post.key.metric, "value": post.value, **named}
