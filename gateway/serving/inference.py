"""The life of a request, read top to bottom.

unit, segments, covariates → variant by integer range over the keyed hash → assignment appended → backend under
deadline and breaker, the champion in its place if a challenger fails → answer with request id and decision token, whole
or piece by piece → completion appended, status page bumped → copies offered to the variants that did not answer.
"""

from __future__ import annotations

import asyncio
import logging

from gateway.assignment.hashing import bucket, unit_digest
from gateway.backends.breaker import Breaker
from gateway.clock import Clock
from gateway.errors import BackendError, BreakerOpen, RequestError
from gateway.events import FORCED, Assignment, Completion, decision_id
from gateway.serving.answers.readings import Reader
from gateway.serving.asgi import Exchange
from gateway.serving.calls.plain import Answer, Call, predicted
from gateway.serving.course import Course
from gateway.serving.facts import keep
from gateway.serving.relay import Relay
from gateway.serving.shadow import Shadows
from gateway.serving.tables.table import Endpoint, Table, Variant
from gateway.spool.writer import SpoolWriter
from gateway.telemetry.seldom import Seldom
from gateway.telemetry.status_page import StatusPage

log = logging.getLogger(__name__)

DECISION = b"x-gateway-decision"
ONE_REQUEST = b"idempotency-key "  # how a unit begins that is one request and its repetitions
_IDEMPOTENCY = b"idempotency-key"
_LONGEST_KEY = 255


class Inference:
    """Answers inference requests of one worker and leaves two facts for each."""

    def __init__(self, spool: SpoolWriter, page: StatusPage, clock: Clock, shadows: Shadows) -> None:
        self._spool = spool
        self._page = page
        self._clock = clock
        self._shadows = shadows
        self._sequence = 0
        self._seldom = Seldom()

    async def serve(self, exchange: Exchange, table: Table, endpoint: Endpoint, call: Call) -> int:
        """Answer the request; returns the status sent. Raises BackendError or OutOfDescriptors if there is no whole
        answer, RequestError if an upload turns out wrong while it comes, ClientGone if the client does not read."""
        variant, assignment = self._assign(exchange, table, endpoint)
        course = Course(variant)
        try:
            if variant is endpoint.champion:
                answer = await call.attempt(variant, self._deadline(variant))
                course.error, course.tries = answer.failure, answer.tries
            else:
                answer = await self._of_challenger(exchange, endpoint, variant, call, course)
            self._begun(exchange, endpoint, course, answer)
            token = table.signer.sign(endpoint.names, assignment.decision, assignment.at, assignment.bucket)
            headers = [*answer.headers, (DECISION, token)]
            if answer.rest is None:
                await exchange.answer(answer.status, headers, answer.body)
            else:
                relay = Relay(exchange, call, answer, course.reader, self._clock)
                await relay.run(headers, answer.rest, self._patience(exchange, call, course.served))
                if course.served is variant:
                    course.error = answer.failure
            course.end = "answered"
        except (Exception, asyncio.CancelledError) as error:
            course.failed(error)
            if isinstance(error, BackendError):
                self._note(exchange, endpoint, course.served, error)
            raise
        finally:
            if course.unreported is not None:
                self._report(variant, course.unreported, course)
            total = self._elapsed_us(exchange)  # read once: fact and histogram tell the same time
            self._complete(endpoint, assignment, course, total)
            variant.counters.completed(course.error, total, course.served is not variant)
        # Only now, when the answer has left; and only for units with a vote, which what shadows say is about.
        if endpoint.plan.shadow and not assignment.flags & FORCED and endpoint.shadows(_unit(exchange, endpoint)):
            self._shadows.offer(table, endpoint, call, assignment, (variant, course.served))
        return course.status

    def _begun(self, exchange: Exchange, endpoint: Endpoint, course: Course, answer: Answer) -> None:
        """An answer is here, or its beginning."""
        course.answer = answer
        course.status = answer.status
        course.first_byte_us = self._elapsed_us(exchange)
        if endpoint.readings is not None:
            course.reader = reader = Reader(endpoint.readings, exchange.started)
            reader.head(answer.status, answer.headers)
            reader.piece(answer.body, self._clock.monotonic())

    def _assign(self, exchange: Exchange, table: Table, endpoint: Endpoint) -> tuple[Variant, Assignment]:
        """Draw the variant and append the fact, before any backend hears of the request."""
        unit = _unit(exchange, endpoint)
        headers = exchange.headers
        segments = tuple([segment.read(headers) for segment in endpoint.segments])
        point = bucket(endpoint.key, unit)
        variant = endpoint.draw(point)
        pi, flags = variant.pi, 0
        if endpoint.kept and (keeper := endpoint.keeper(segments)):
            variant, pi, flags = keeper, 1.0, FORCED
        self._sequence += 1
        assignment = Assignment(
            decision_id(self._spool.number, self._sequence),
            self._spool.now(),
            endpoint.plan.name,
            endpoint.plan.experiment,
            endpoint.plan.stage,
            variant.plan.name,
            pi,
            point,
            unit_digest(table.pepper, unit),
            segments,
            table.plan.revision,
            flags,
            tuple([covariate.read(headers) for covariate in endpoint.covariates]) if endpoint.covariates else (),
        )
        keep(assignment, self._spool, self._page)
        return variant, assignment

    async def _of_challenger(
        self, exchange: Exchange, endpoint: Endpoint, variant: Variant, call: Call, course: Course
    ) -> Answer:
        """Put the call to a challenger; if it fails and that is safe, the champion answers in its place."""
        try:
            answer = await self._guarded(variant, call, course)
        except BackendError as failure:
            course.error, course.tries = failure.kind, failure.tries
            if not call.may_fall_back(variant, failure):
                raise
            self._note(exchange, endpoint, variant, failure)
        else:
            course.error, course.tries = answer.failure, answer.tries
            if not answer.failure or not call.may_fall_back(variant):
                return answer
            if answer.rest is not None:
                answer.rest.close()
        champion = endpoint.champion
        answer = await call.attempt(champion, self._deadline(champion))
        course.served = champion
        return answer

    async def _guarded(self, variant: Variant, call: Call, course: Course) -> Answer:
        """One attempt of a challenger behind its breaker, which hears at once of an answer that is whole; of one that
        is still coming only at its end: a stream that always breaks off would otherwise never open it."""
        breaker = variant.breaker
        assert breaker is not None
        now = self._clock.monotonic()
        if not breaker.allow(now):
            raise BreakerOpen("the variant has failed too often and is left alone for a moment")
        try:
            answer = await call.attempt(variant, self._deadline(variant))
        except BackendError:
            self._failed(variant)
            raise
        except BaseException:
            breaker.abandon()
            raise
        if answer.failure:
            self._failed(variant)
        elif answer.rest is not None:
            course.unreported = breaker
        else:
            breaker.success()
        return answer

    def _report(self, variant: Variant, breaker: Breaker, course: Course) -> None:
        """How the rest of an answer came; where the client left, nobody knows."""
        if course.error:
            self._failed(variant)
        elif course.end == "answered":
            breaker.success()
        else:
            breaker.abandon()

    def _failed(self, variant: Variant) -> None:
        assert variant.breaker is not None
        before = variant.breaker.state
        variant.breaker.failure(self._clock.monotonic())
        if variant.breaker.state == "open" and before != "open":
            variant.counters.breaker_opened()

    def _note(self, exchange: Exchange, endpoint: Endpoint, variant: Variant, error: BackendError) -> None:
        """Tell who runs the gateway what the client is not told: which host, and what the system said."""
        if isinstance(error, BreakerOpen):
            return
        name = endpoint.plan.name
        left_out = self._seldom.due((name, variant.name, error.kind), self._clock.monotonic())
        if left_out is not None:
            more = {"request_id": exchange.request_id.decode(), "kind": error.kind, "tries": error.tries}
            text = f"{error} ({error.about})" if error.about else str(error)
            log.warning("%s/%s: %s", name, variant.name, text, extra={**more, "left_out": left_out})

    def _patience(self, exchange: Exchange, call: Call, served: Variant) -> float:
        """Seconds for the rest of a streamed answer. What an upload has taken is taken off: together they are bounded,
        for verdicts wait for them."""
        plan = served.plan
        if call.request.upload is None:
            return plan.stream_timeout
        spent = self._clock.monotonic() - exchange.started
        return max(0.001, plan.stream_timeout - max(0.0, spent - plan.timeout))

    def _deadline(self, variant: Variant) -> float:
        return asyncio.get_running_loop().time() + variant.plan.timeout

    def _complete(self, endpoint: Endpoint, assignment: Assignment, course: Course, total: int) -> None:
        completion = Completion(
            assignment.decision,
            self._spool.now(),
            course.served.name,
            course.end,
            course.status,
            total if course.first_byte_us is None else course.first_byte_us,  # no byte came: at least as long
            total,
            course.error,
            predicted(endpoint, course.served, course.answer) if endpoint.capture else None,
            course.tries,
            assignment.at,
        )
        if course.reader is None:
            keep(completion, self._spool, self._page)
            return
        read = course.reader.end(course.end, self._clock.monotonic())
        course.served.counters.read(read)
        keep(completion, self._spool, self._page, *read.facts(assignment, completion.at))

    def _elapsed_us(self, exchange: Exchange) -> int:
        return int((self._clock.monotonic() - exchange.started) * 1e6)


def _unit(exchange: Exchange, endpoint: Endpoint) -> bytes:
    """What is randomised: a request without a unit of its own is one by itself, and so are its repetitions where the
    client says which they are. Raises RequestError if it says so in a way that cannot be kept to."""
    headers = exchange.headers
    if unit := headers.get(endpoint.unit_header):
        return unit
    if _IDEMPOTENCY not in headers:
        return exchange.request_id
    key = exchange.once(_IDEMPOTENCY) or b""
    if not 0 < len(key) <= _LONGEST_KEY:
        raise RequestError(f"idempotency-key must have 1 to {_LONGEST_KEY} characters")
    return ONE_REQUEST + key  # a user of the same name is somebody else
