"""Whatever an upstream answers, reading numbers from it raises nothing, and what passes through stays as it was."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.base import Headers
from gateway.errors import BadOutput, RequestError
from gateway.events import End
from gateway.plan import CapturePlan, EndpointPlan, MetricPlan, ReadingPlan, Slot, VariantPlan
from gateway.serving.answers.capture import Capture
from gateway.serving.answers.readings import Reader, Readings
from gateway.serving.oip import proxy
from gateway.serving.wire.splice import every_top_level, replaced
from gateway.serving.wire.sse import EventEditor, EventReader
from tests.fuzz.mutations import CUTS, cut, documents, edited
from tests.fuzz.profile import FUZZ, frugal

OUTPUTS = [
    {"name": "p", "datatype": "FP32", "shape": [1, 2], "data": [0.25, 0.75]},
    {"name": "q", "datatype": "INT64", "shape": [2, 1], "data": [[1], [2]]},
    {"name": "r", "datatype": "FP64", "shape": [1], "parameters": {"binary_data_size": 8}},
]
OIP = {"model_name": "m", "outputs": OUTPUTS}
CHAT = {
    "model": "m",
    "choices": [{"delta": {"content": "word"}}],
    "usage": {"completion_tokens": 3, "output_tokens": 2},
    "response": {"usage": {"output_tokens": 4}},
    "score": [0.5, True],
}
WORDS = ["outputs", "name", "shape", "data", "datatype", "parameters", "binary_data_size", "p", "q", "r", "usage"]
CHUNK = b"data: " + orjson.dumps(CHAT)
STREAMS = [
    CHUNK + b"\n\n" + CHUNK + b"\r\n\r\ndata: [DONE]\n\n",
    b"event: response.delta\rdata: {\rdata: }\r\r: comment\n\n" + CHUNK,
]
EVENT_TOKENS = (b"\n", b"\r", b"\r\n", b"\n\n", b"data:", b"data: ", b"event: response.x", b'"', b"\\", b"\xff", b"\0")
END = st.sampled_from(["answered", "failed", "client_closed", "rejected"])
CODINGS = st.sampled_from([None, b"gzip", b"deflate", b"br", b"GZIP ", b"\xff"])
METRICS = {
    "header:x-cost": MetricPlan(name="cost", type="bounded", source="answer"),
    "json:/score/0": MetricPlan(name="score", type="unbounded", source="answer", low=None, high=None),
    "json:/usage/completion_tokens": MetricPlan(name="used", type="count", source="answer", high=None),
    "json:/score/1": MetricPlan(name="safe", type="binary", source="answer"),
    "stream:first_token": MetricPlan(name="first", type="bounded", source="answer"),
    "stream:tokens": MetricPlan(name="tokens", type="count", source="answer", high=None),
}


def _readings(protocol: Any) -> Readings:
    places = [(metric.name, *place.split(":")) for place, metric in METRICS.items()]
    readings = Readings.of(
        EndpointPlan(
            name="chat",
            protocol=protocol,
            salt="exp",
            experiment="exp",
            stage="s",
            unit_header="",
            variants=(VariantPlan(name="a", role="champion", timeout=1.0, urls=("http://a",)),),
            slots=(Slot(start=0, variant="a"),),
            metrics=tuple(METRICS.values()),
            readings=tuple(ReadingPlan(metric=name, kind=kind, what=what) for name, kind, what in places),  # type: ignore[arg-type]
        )
    )
    assert readings is not None
    return readings


READINGS = {protocol: _readings(protocol) for protocol in ("openai", "http")}
CAPTURES = [Capture.of(CapturePlan(output=output, index=index), None) for output in ("", "q", "r") for index in (-1, 1)]


def packed(body: bytes, coding: bytes | None) -> bytes:
    if coding == b"gzip":
        return gzip.compress(body)
    return zlib.compress(body) if coding == b"deflate" else body


def captured(headers: Headers, body: bytes) -> None:
    with frugal():
        found = [capture.from_json(headers, body) for capture in CAPTURES]
    assert all(value is None or (type(value) is float and math.isfinite(value)) for value in found)


def read(protocol: str, headers: Headers, pieces: list[bytes], end: End) -> None:
    reader = Reader(READINGS[protocol], 100.0)
    with frugal():
        reader.head(200, headers)
        for number, piece in enumerate(pieces):
            reader.piece(piece, 101.0 + number)
        found = reader.end(end, 200.0)
    names = [*(name for name, _ in found.values), *found.unread, *found.refused]
    assert len(names) == len(set(names))
    assert all(type(value) is float and math.isfinite(value) for _, value in found.values)


@FUZZ
@given(documents([OIP], WORDS), st.binary(max_size=16), st.integers(-40, 40), CODINGS)
def test_predictions_of_any_document(document: Any, data: bytes, off: int, coding: bytes | None) -> None:
    text = json.dumps(document).encode()
    fields = [(b"inference-header-content-length", b"%d" % (len(text) + off))]
    captured(fields if coding is None else [*fields, (b"content-encoding", coding)], packed(text + data, coding))


@FUZZ
@given(edited([orjson.dumps(OIP) + bytes(8)]), edited([b"1", b"300"]))
def test_predictions_of_any_bytes(body: bytes, length: bytes) -> None:
    captured([], body)
    captured([(b"inference-header-content-length", length)], body)


@FUZZ
@given(st.sampled_from(list(READINGS)), documents([CHAT], WORDS), edited([b"0.5", b"true"]), CUTS, CODINGS, END)
def test_numbers_of_any_document(
    protocol: str, document: Any, cost: bytes, cuts: list[int], coding: bytes | None, end: End
) -> None:
    body = packed(json.dumps(document).encode(), coding)
    fields = [(b"content-type", b"application/json"), (b"x-cost", cost)]
    read(protocol, fields if coding is None else [*fields, (b"content-encoding", coding)], cut(body, cuts), end)


@FUZZ
@given(st.sampled_from(list(READINGS)), edited(STREAMS, EVENT_TOKENS), CUTS, CODINGS, st.booleans(), END)
def test_numbers_of_any_stream(
    protocol: str, stream: bytes, cuts: list[int], coding: bytes | None, kept: bool, end: End
) -> None:
    fields = [(b"content-type", b"text/event-stream")]
    body = packed(stream, coding) if kept else stream  # or in another coding than it says
    read(protocol, fields if coding is None else [*fields, (b"content-encoding", coding)], cut(body, cuts), end)


@FUZZ
@given(edited(STREAMS, EVENT_TOKENS), CUTS)
def test_events_are_the_same_however_they_are_cut(stream: bytes, cuts: list[int]) -> None:
    whole, pieces = EventReader(), EventReader()
    events = whole.feed(stream) + whole.rest()
    assert [event for piece in cut(stream, cuts) for event in pieces.feed(piece)] + pieces.rest() == events


@FUZZ
@given(edited(STREAMS, EVENT_TOKENS), CUTS)
def test_an_edited_stream_has_lost_nothing(stream: bytes, cuts: list[int]) -> None:
    editor = EventEditor(b"nobody_has_this", b'"x"')
    assert b"".join([editor.feed(piece) for piece in cut(stream, cuts)]) + editor.rest() == stream
    whole, pieces = EventEditor(b"model", b'"x"'), EventEditor(b"model", b'"x"')
    at_once = whole.feed(stream) + whole.rest()
    assert b"".join([pieces.feed(piece) for piece in cut(stream, cuts)]) + pieces.rest() == at_once


@FUZZ
@given(edited([orjson.dumps(CHAT), b'{"\\u006dodel": [1, {"model": 2}], "model" : "\\"" }']))
def test_a_value_is_replaced_in_any_text(text: bytes) -> None:
    with frugal():
        spans = every_top_level(text, b"model")
        made = replaced(text, spans, b'"chat"')
    assert len(made) == len(text) + sum(6 - (span.end - span.start) for span in spans)
    try:
        document, given_ = orjson.loads(made), orjson.loads(text)
    except orjson.JSONDecodeError:
        return
    if isinstance(given_, dict) and "model" in given_:
        assert document == given_ | {"model": "chat"}
    else:
        assert document == given_


@FUZZ
@given(documents([OIP], WORDS), st.binary(max_size=16), edited([b"0", b"90"]), CODINGS, st.booleans())
def test_masking_is_done_or_said_to_be_impossible(
    document: Any, data: bytes, length: bytes, coding: bytes | None, kept: bool
) -> None:
    fields = [(b"inference-header-content-length", length), (b"content-length", b"1")]
    headers = fields if coding is None else [*fields, (b"content-encoding", coding)]
    body = json.dumps(document).encode() + data
    try:
        with frugal():
            proxy.mask(headers, packed(body, coding) if kept else body, "public")
    except (BadOutput, RequestError):
        return


@pytest.mark.parametrize("size", [0, 2**63])
def test_a_tensor_that_is_not_there_is_not_allocated(size: int) -> None:
    tensor = {"name": "p", "datatype": "FP32", "shape": [2**62], "parameters": {"binary_data_size": size}}
    captured([], orjson.dumps({"outputs": [tensor]}))


def test_a_shape_of_very_many_dimensions_costs_what_its_size_does() -> None:
    body = orjson.dumps({"outputs": [{"name": "p", "datatype": "FP32", "shape": [2**63] * 15_000, "data": [1.0]}]})
    with frugal(seconds=0.2):
        assert CAPTURES[0].from_json([], body) is None
