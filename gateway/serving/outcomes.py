"""The first half of an outcome's life: token checked, metric and bounds checked, appended, acknowledged.

one    {"decision": "<token>", "metric": "brier", "value": 0.04, "id": "optional"}
many   a JSON array of these, {"outcomes": [...]}, or one per line as application/x-ndjson
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from gateway.assignment.token import Token
from gateway.errors import GatewayError, NotReady, RequestError, SpoolError, ValueRejected
from gateway.events import Fact, Outcome, Rejection
from gateway.plan import MetricPlan
from gateway.serving.answers.values import checked, finite
from gateway.serving.asgi import Exchange
from gateway.serving.tables.table import Table
from gateway.spool.writer import SpoolWriter
from gateway.telemetry import metrics
from gateway.telemetry.status_page import StatusPage

MOST = 10_000  # outcomes in one request
DURABILITY = "process"  # what was acknowledged survives kill -9 of every process
_LONGEST_ID = 128
_LONGEST_NAME = 128
_JSON = [(b"content-type", b"application/json")]
_KEYS = frozenset(("decision", "metric", "value", "id"))


Counted = tuple[str, str, str]  # labels of the counter: endpoint, metric, result


class Outcomes:
    """Takes in the outcomes posted to one worker."""

    def __init__(self, spool: SpoolWriter, page: StatusPage) -> None:
        self._spool = spool
        self._page = page

    async def serve(self, exchange: Exchange, table: Table) -> None:
        body = await exchange.plain_body(table.plan.max_body)
        items, single = _items(body, exchange.headers.get(b"content-type", b""))
        facts: list[Fact] = []
        refused: list[tuple[int, GatewayError]] = []
        counts: list[Counted] = []
        for index, item in enumerate(items):
            try:
                fact, counted = self._accept(table, item)
                facts.append(fact)
            except _Refused as refusal:
                facts.append(refusal.fact)
                refused.append((index, refusal.error))
                counted = refusal.counted
            except RequestError as error:
                refused.append((index, error))
                counted = ("", "", error.reason)
            counts.append(counted)
        self._keep(facts)
        for counted in counts:
            self._page.words[self._page.slot(metrics.OUTCOMES.name, counted)] += 1
        if single and refused:
            raise refused[0][1]
        await exchange.answer(*_acknowledge(len(items), refused))

    def _accept(self, table: Table, item: Any) -> tuple[Outcome, Counted]:
        token, name, value, identifier = _fields(table, item)
        metric: MetricPlan | None = None
        now = self._spool.now()
        try:
            metric = _metric(table, token, name)
            number = finite(name, value) if metric is None else checked(metric, value)
        except ValueRejected as error:
            rejection = Rejection(now, token.decision, token.endpoint, token.experiment, error.reason)
            raise _Refused(error, rejection, (token.endpoint, metric.name if metric else "", error.reason)) from error
        named = token.decision, token.endpoint, token.experiment
        outcome = Outcome(identifier, now, *named, name, number, token.assigned_at)
        return outcome, (token.endpoint, metric.name if metric else "", "accepted")

    def _keep(self, facts: list[Fact]) -> None:
        if not facts:
            return
        try:
            self._spool.append_all(facts)
        except SpoolError as error:
            self._page.words[self._page.slot(metrics.SPOOL_FAILURES.name, (self._spool.stream,))] += 1
            # Some may be kept all the same: sent again they are recognised by their id.
            raise NotReady("the outcomes could not be kept; send all of them again") from error


class _Refused(Exception):
    """An authentic outcome that cannot be taken: refused to the client, and kept as a fact of its variant."""

    def __init__(self, error: ValueRejected, fact: Rejection, counted: Counted) -> None:
        super().__init__(str(error))
        self.error = error
        self.fact = fact
        self.counted = counted


def _items(body: bytes, content_type: bytes) -> tuple[Sequence[Any], bool]:
    """The outcomes of a request, and whether it was a single one."""
    if content_type.split(b";")[0].strip().lower() == b"application/x-ndjson":
        lines = enumerate(body.split(b"\n"), start=1)
        documents: Any = [_json(line, f"line {number}") for number, line in lines if line.strip()]
        return _counted(documents), False
    documents = _json(body, "the body")
    if isinstance(documents, dict) and set(documents) == {"outcomes"}:
        documents = documents["outcomes"]
    if isinstance(documents, dict):
        return [documents], True
    return _counted(documents), False


def _json(text: bytes, where: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"{where} is not valid JSON: {error}") from error


def _counted(documents: Any) -> list[Any]:
    if not isinstance(documents, list) or not documents:
        raise RequestError("expected an outcome, or a list of at least one outcome")
    if len(documents) > MOST:
        raise RequestError(f"at most {MOST} outcomes in one request, got {len(documents)}")
    return documents


def _fields(table: Table, item: Any) -> tuple[Token, str, Any, str]:
    if not isinstance(item, dict):
        raise RequestError("an outcome is an object")
    if unknown := sorted(set(item) - _KEYS):
        raise RequestError(f"unknown keys {unknown}; an outcome has decision, metric, value and optionally id")
    token, metric, identifier = item.get("decision"), item.get("metric"), item.get("id", "")
    if not isinstance(token, str):
        raise RequestError("`decision` must be the token from the answer's x-gateway-decision header")
    if not isinstance(metric, str) or not 0 < len(metric) <= _LONGEST_NAME:
        raise RequestError("`metric` must be the name of a metric")
    if not isinstance(identifier, str) or len(identifier) > _LONGEST_ID:
        raise RequestError(f"`id` must be a string of at most {_LONGEST_ID} characters")
    if "value" not in item:
        raise RequestError("`value` is missing")
    return table.signer.verify(token), metric, item["value"], identifier


def _metric(table: Table, token: Token, name: str) -> MetricPlan | None:
    """The metric's definition, or None when the token's experiment is no longer in the plan.

    Then the outcome is kept all the same: the control process knows past experiments and checks the bounds.
    """
    endpoint = table.endpoints.get(token.endpoint)
    if endpoint is None or endpoint.plan.experiment != token.experiment:
        return None
    metric = endpoint.metrics.get(name)
    if metric is None or not _is_posted(metric):
        known = sorted(known.name for known in endpoint.metrics.values() if _is_posted(known))
        raise ValueRejected(f"unknown metric {name!r}; outcomes of {token.endpoint} are {known}")
    return metric


def _is_posted(metric: MetricPlan) -> bool:
    """Of a ratio the two parts are posted, each under its own name; of a score the label."""
    return metric.source == "outcome" and metric.type not in ("ratio", "latency")


def _acknowledge(total: int, refused: list[tuple[int, GatewayError]]) -> tuple[int, Any, bytes]:
    body: dict[str, Any] = {"accepted": total - len(refused), "durability": DURABILITY}
    if refused:
        body["rejected"] = [
            {"index": index, "status": error.status, "reason": error.reason, "detail": str(error)}
            for index, error in refused
        ]
    # Partly taken, or refused for different reasons: 422, and the list says which and why.
    kinds = {error.status for _, error in refused}
    status = 200 if not refused else kinds.pop() if len(refused) == total and len(kinds) == 1 else 422
    return status, _JSON, orjson.dumps(body)
