"""Numbers that the gateway reads from answers: outcomes that it posts itself, at the end of the request.

Compiled once for a plan; each request has a reader of its own, which sees a copy of the answer while it passes.
Nothing here raises: what cannot be read is counted, and the unit is without that outcome.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from gateway.assignment.covariates import number
from gateway.backends.base import Headers
from gateway.errors import ValueRejected
from gateway.events import Assignment, End, Outcome, Rejection
from gateway.plan import EndpointPlan, MetricPlan
from gateway.serving.answers.capture import LARGEST
from gateway.serving.answers.streams import Pointer, Stream, StreamReader
from gateway.serving.answers.values import checked, limits
from gateway.serving.wire.coding import Decoder
from gateway.serving.wire.headers import is_event_stream

_BOOLEANS = {b"true": True, b"false": False}


class Read(NamedTuple):
    """What an answer gave. `unread` are metrics whose value is not there, `refused` those that cannot take theirs."""

    values: list[tuple[str, float]]
    unread: list[str]
    refused: list[str]
    stream: Stream | None
    oversized: int  # events of the stream that were too large to be read

    def facts(self, assignment: Assignment, at: int) -> Iterator[Outcome | Rejection]:
        """What is left in the spool; `at` is in microseconds since the epoch."""
        decision, endpoint, experiment = assignment.decision, assignment.endpoint, assignment.experiment
        for metric, value in self.values:
            yield Outcome("", at, decision, endpoint, experiment, metric, value, assignment.at)
        for _ in self.refused:
            yield Rejection(at, decision, endpoint, experiment, ValueRejected.reason)


@dataclass(frozen=True, slots=True)
class Readings:
    """What is read from the answers of one endpoint."""

    headers: tuple[tuple[MetricPlan, bytes], ...]
    pointers: tuple[tuple[MetricPlan, Pointer], ...]
    words: tuple[tuple[MetricPlan, str], ...]  # fields of a Stream
    any_content: bool  # of what an event stream's content looks like nothing is known

    @classmethod
    def of(cls, plan: EndpointPlan) -> Readings | None:
        """None if there is nothing to read. Of chat streams there always is: they have metrics for Prometheus."""
        protocol: str = plan.protocol
        if not plan.readings and protocol != "openai":
            return None
        metrics = {metric.name: metric for metric in plan.metrics}
        places = [(metrics[reading.metric], reading) for reading in plan.readings]
        return cls(
            tuple((metric, reading.what.encode()) for metric, reading in places if reading.kind == "header"),
            tuple((metric, Pointer.of(reading.what)) for metric, reading in places if reading.kind == "json"),
            tuple((metric, reading.what) for metric, reading in places if reading.kind == "stream"),
            protocol != "openai",
        )


@dataclass(slots=True)
class Reader:
    """Reads one answer. Times are monotonic seconds; a backend's answers only, never what the gateway says itself."""

    readings: Readings
    started: float  # when the request's head was there
    _read: Read = field(default_factory=lambda: Read([], [], [], None, 0))
    _decoder: Decoder | None = None  # None if nothing of the body is read
    _stream: StreamReader | None = None
    _body: bytearray | None = field(default_factory=bytearray)  # None if it is too large

    def head(self, status: int, headers: Headers) -> None:
        """The answer begins; one with an error status has no numbers."""
        if status >= 400:
            return
        readings = self.readings
        for metric, name in readings.headers:
            self._take(metric, _header(headers, name))
        if is_event_stream(headers):
            pointers = tuple(pointer for _, pointer in readings.pointers)
            self._stream = StreamReader(pointers, readings.any_content)
            self._decoder = Decoder(headers)
        elif readings.pointers:
            self._decoder = Decoder(headers)

    def piece(self, piece: bytes, now: float) -> None:
        """A piece of the body is passed on."""
        if self._decoder is None or self._decoder.broken:
            return
        text = self._decoder.feed(piece)
        if self._stream is not None:
            self._stream.piece(text, now)
        elif self._body is not None:
            if len(self._body) + len(text) <= LARGEST:
                self._body += text
            else:
                self._body = None

    def end(self, end: End, now: float) -> Read:
        """The answer has ended. What is not there of one that the client left is not missed; of one that broke off all
        is that only a whole one has. To be called once."""
        if self._stream is not None and self._decoder is not None:
            stream = self._stream.end(self.started, now, end, not self._decoder.broken)
            self._read = self._read._replace(stream=stream, oversized=self._stream.oversized)
            # The last event that has a number counts: which that is of a stream that broke off, nobody knows.
            self._take_stream(stream, {} if end in ("failed", "rejected") else self._stream.found)
        elif self._decoder is not None and end != "client_closed":
            document = self._document(self._decoder) if end == "answered" else None
            for metric, pointer in self.readings.pointers:
                self._take(metric, pointer.find(document))
        return self._read

    def _document(self, decoder: Decoder) -> Any:
        if self._body is None or not decoder.complete:
            return None
        try:
            return orjson.loads(self._body)
        except orjson.JSONDecodeError:
            return None

    def _take_stream(self, stream: Stream, found: dict[Pointer, Any]) -> None:
        for metric, pointer in self.readings.pointers:
            self._take(metric, found.get(pointer), cut=stream.aborted)
        for metric, word in self.readings.words:
            value = getattr(stream, word)
            # The gateway has measured it, so it is no mistake: left out, the worst streams would count for nothing.
            self._take(metric, value if value is None else _within(metric, value), cut=stream.aborted)

    def _take(self, metric: MetricPlan, value: Any, cut: bool = False) -> None:
        """`cut` if a value that is not there might have come later."""
        if value is None:
            if not cut:
                self._read.unread.append(metric.name)
            return
        try:
            self._read.values.append((metric.name, checked(metric, value)))
        except ValueRejected:
            self._read.refused.append(metric.name)


def _header(headers: Headers, name: bytes) -> float | None:
    """The number in a header, None if it has none, or is there twice: which one would count?"""
    values = [value for field_name, value in headers if field_name == name]
    if len(values) != 1:
        return None
    value = _BOOLEANS.get(values[0].strip().lower(), number(values[0]))
    return None if math.isnan(value) else value


def _within(metric: MetricPlan, value: float) -> float:
    low, high = limits(metric)
    return min(max(float(value), low), high)
