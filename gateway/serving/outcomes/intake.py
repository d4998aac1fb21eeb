"""The first half of an outcome's life: judged, appended, on the disk where that is asked for, acknowledged."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import orjson

from gateway.clock import Clock
from gateway.errors import NotReady, RequestError, SpoolError
from gateway.events import Fact
from gateway.plan import Durability
from gateway.serving.asgi import Exchange
from gateway.serving.outcomes.callers import Allowance, Caller
from gateway.serving.outcomes.judge import Counted, Judge, Refused
from gateway.serving.outcomes.posted import MOST, documents, posted
from gateway.serving.tables.table import Table
from gateway.spool.sync import GroupSync
from gateway.spool.writer import SpoolWriter
from gateway.telemetry import metrics
from gateway.telemetry.status_page import StatusPage

__all__ = ["MOST", "Outcomes"]

_TURN = 500  # outcomes judged in one turn of the loop, for a few milliseconds: inference requests wait meanwhile
_LONGEST = 500  # characters of why one of many was refused: it may quote what the client sent
_JSON = [(b"content-type", b"application/json")]


@dataclass(slots=True)
class _Taken:
    """What the outcomes of one request came to."""

    facts: list[Fact] = field(default_factory=list)
    refused: list[tuple[int, RequestError]] = field(default_factory=list)  # with their places in the request
    counts: Counter[Counted] = field(default_factory=Counter)


class Outcomes:
    """Takes in the outcomes posted to one worker."""

    def __init__(self, spool: SpoolWriter, page: StatusPage, clock: Clock) -> None:
        self._spool = spool
        self._page = page
        self._clock = clock
        self._sync = GroupSync(spool, clock, self._synced)
        self._allowance = Allowance()

    async def serve(self, exchange: Exchange, table: Table) -> None:
        body = await exchange.plain_body(table.plan.max_body)
        items, single = documents(body, exchange.headers.get(b"content-type", b""))
        terms = table.plan.outcomes
        judge = Judge(table, Caller(exchange, terms.keys), self._allowance)
        taken = await self._judged(items, judge)
        await self._keep(taken.facts, terms.durability)
        for counted, number in taken.counts.items():
            self._page.words[self._page.slot(metrics.OUTCOMES.name, counted)] += number
        if single and taken.refused:
            raise taken.refused[0][1]
        await exchange.answer(*_acknowledge(len(items), taken.refused, terms.durability))

    async def close(self) -> None:
        await self._sync.close()

    async def _judged(self, items: Sequence[Any], judge: Judge) -> _Taken:
        taken = _Taken()
        for start in range(0, len(items), _TURN):
            if start:
                await asyncio.sleep(0)
            self._judge(items, range(start, min(start + _TURN, len(items))), judge, taken)
        if len(items) > _TURN:
            # Others have appended meanwhile, and times in a stream must not go back.
            first = self._spool.moments(len(taken.facts))
            taken.facts = [msgspec.structs.replace(fact, at=at) for at, fact in enumerate(taken.facts, start=first)]
        return taken

    def _judge(self, items: Sequence[Any], places: range, judge: Judge, taken: _Taken) -> None:
        # Of two with one id the first counts, so each has a moment of its own.
        first = self._spool.moments(len(places))
        self._allowance.renew(self._clock.monotonic())
        for at, place in enumerate(places, start=first):
            try:
                fact, counted = judge.accept(posted(items[place]), at)
                taken.facts.append(fact)
            except Refused as refusal:
                if refusal.fact is not None:
                    taken.facts.append(refusal.fact)
                taken.refused.append((place, refusal.error))
                counted = refusal.counted
            except RequestError as error:
                taken.refused.append((place, error))
                counted = ("", "", error.reason)
            taken.counts[counted] += 1

    async def _keep(self, facts: list[Fact], durability: Durability) -> None:
        if not facts:
            return
        try:
            if durability == "disk":
                if self._sync.crowded:
                    raise SpoolError("too many wait for the disk already")
                self._spool.append_all(facts)
                await self._sync.synced()
            else:
                self._spool.append_all(facts)
        except SpoolError as error:
            self._page.words[self._page.slot(metrics.SPOOL_FAILURES.name, (self._spool.stream,))] += 1
            # Some may be kept all the same: sent again they are recognised by their id.
            raise NotReady("the outcomes could not be kept; send all of them again") from error

    def _synced(self, result: str, microseconds: int) -> None:
        slot = self._page.slot(metrics.SPOOL_SYNCS.name, (result,), metrics.HISTOGRAM_SLOTS)
        self._page.words[slot + metrics.latency_slot(microseconds)] += 1
        self._page.words[slot + metrics.HISTOGRAM_SLOTS - 1] += microseconds


def _acknowledge(total: int, refused: list[tuple[int, RequestError]], durability: Durability) -> tuple[int, Any, bytes]:
    body: dict[str, Any] = {"accepted": total - len(refused), "durability": durability}
    if refused:
        body["rejected"] = [
            {"index": index, "status": error.status, "reason": error.reason, "detail": str(error)[:_LONGEST]}
            for index, error in refused
        ]
    # Partly taken, or refused for different reasons: 422, and the list says which and why.
    kinds = {error.status for _, error in refused}
    status = 200 if not refused else kinds.pop() if len(refused) == total and len(kinds) == 1 else 422
    return status, _JSON, orjson.dumps(body)
