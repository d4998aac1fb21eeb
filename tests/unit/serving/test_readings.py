"""Numbers read from answers: found where they are, counted where they are not, and never in the way of the answer."""

from __future__ import annotations

import gzip
import json
import zlib
from itertools import pairwise
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.base import Headers
from gateway.events import Assignment, End, Outcome, Rejection
from gateway.plan import EndpointPlan, MetricPlan, ReadingPlan, Slot, VariantPlan
from gateway.serving.answers.capture import LARGEST
from gateway.serving.answers.readings import Read, Reader, Readings
from gateway.serving.answers.streams import Stream

JSON: Headers = [(b"content-type", b"application/json")]
EVENTS: Headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
TOKENS = MetricPlan(name="tokens", type="count", source="answer", high=None)
COST = MetricPlan(name="cost", type="bounded", source="answer")
SAFE = MetricPlan(name="safe", type="binary", source="answer")
START = 100.0


def plan(protocol: Any, *readings: tuple[MetricPlan, str]) -> EndpointPlan:
    return EndpointPlan(
        name="chat",
        protocol=protocol,
        salt="exp",
        experiment="exp",
        stage="s",
        unit_header="",
        variants=(VariantPlan(name="a", role="champion", timeout=1.0, urls=("http://a",)),),
        slots=(Slot(start=0, variant="a"),),
        metrics=tuple(metric for metric, _ in readings),
        readings=tuple(place(metric, text) for metric, text in readings),
    )


def place(metric: MetricPlan, text: str) -> ReadingPlan:
    kind, what = text.split(":", 1)
    return msgspec.convert({"metric": metric.name, "kind": kind, "what": what}, ReadingPlan)


def reader(*readings: tuple[MetricPlan, str], protocol: str = "openai") -> Reader:
    compiled = Readings.of(plan(protocol, *readings))
    assert compiled is not None
    return Reader(compiled, START)


def read(one: Reader, headers: Headers, *pieces: bytes, status: int = 200, end: End = "answered") -> Read:
    """Each piece comes half a second after the one before."""
    one.head(status, headers)
    now = START
    for piece in pieces:
        now += 0.5
        one.piece(piece, now)
    return one.end(end, now + 0.25)


def chunk(content: str | None = None, **more: Any) -> bytes:
    delta = {} if content is None else {"content": content}
    document = {"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None}], **more}
    return f"data: {json.dumps(document)}\n\n".encode()


ROLE = chunk("", usage=None)
USAGE = chunk(None, choices=[], usage={"prompt_tokens": 9, "completion_tokens": 4})
DONE = b"data: [DONE]\n\n"
CHAT = (ROLE, chunk("Hel"), chunk("lo"), USAGE, DONE)


@pytest.mark.parametrize(
    ("value", "cost", "safe"),
    [(b"0.25", 0.25, None), (b" 1 ", 1.0, 1.0), (b"true", 1.0, 1.0), (b"False", 0.0, 0.0), (b"1e-1", 0.1, None)],
)
def test_a_header_is_a_number_or_true_or_false(value: bytes, cost: float, safe: float | None) -> None:
    found = read(reader((COST, "header:x-cost"), (SAFE, "header:x-cost")), [(b"x-cost", value)])
    assert dict(found.values) == {"cost": cost} | ({} if safe is None else {"safe": safe})
    assert found.refused == ([] if safe is not None else ["safe"])


@pytest.mark.parametrize(
    "headers",
    [[], [(b"x-cost", b"1_0")], [(b"x-cost", b"")], [(b"x-cost", b"nan")], [(b"x-cost", b"1"), (b"x-cost", b"1")]],
)
def test_a_header_without_one_number_is_counted(headers: Headers) -> None:
    assert read(reader((COST, "header:x-cost")), headers) == Read([], ["cost"], [], None, 0)


def test_values_that_the_metric_does_not_take_are_refused() -> None:
    one = reader((COST, "header:x-cost"), (TOKENS, "json:/n"), (SAFE, "json:/safe"))
    found = read(one, [(b"x-cost", b"1.5")], b'{"n": "7", "safe": 0.5}')
    assert found == Read([], [], ["cost", "tokens", "safe"], None, 0)
    assert read(reader((COST, "header:x-cost")), [(b"x-cost", b"inf")]).refused == ["cost"]


BODY = b'{"usage": {"completion_tokens": 17, "a/b": {"m~n": [3, {"": 5}]}}, "ok": true, "none": null}'


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/usage/completion_tokens", 17.0),
        ("/ok", 1.0),
        ("/usage/a~1b/m~0n/0", 3.0),
        ("/usage/a~1b/m~0n/1/", 5.0),
        ("/usage/a~1b/m~0n/2", None),
        ("/usage/a~1b/m~0n/-", None),
        ("/usage/a~1b/m~0n/00", None),
        ("/usage/a~1b/m~0n/-1", None),
        ("/ok/0", None),
        ("/none", None),
        ("/other", None),
    ],
)
def test_a_json_pointer_finds_its_number(pointer: str, value: float | None) -> None:
    found = read(reader((TOKENS, f"json:{pointer}"), protocol="http"), JSON, BODY[:20], BODY[20:])
    assert found == (Read([], ["tokens"], [], None, 0) if value is None else Read([("tokens", value)], [], [], None, 0))


@pytest.mark.parametrize(
    ("encoding", "body", "known"),
    [
        (b"gzip", gzip.compress(BODY, mtime=0), True),
        (b"Deflate", zlib.compress(BODY), True),
        (b"gzip", gzip.compress(BODY, mtime=0)[:-1], False),
        (b"gzip", BODY, False),
        (b"br", BODY, False),
        (b"gzip", gzip.compress(b" " * (LARGEST + 1) + BODY, mtime=0), False),
        (b"identity", b" " * (LARGEST + 1) + BODY, False),
        (b"identity", BODY[:-1], False),
        (b"identity", b"", False),
        (b"identity", b"[" * 100_000, False),
    ],
)
def test_what_is_packed_is_unpacked_and_what_is_broken_counted(encoding: bytes, body: bytes, known: bool) -> None:
    cut = len(body) // 2
    one = reader((TOKENS, "json:/usage/completion_tokens"))
    found = read(one, [*JSON, (b"content-encoding", encoding)], body[:cut], body[cut:])
    assert (found.values, found.unread) == (([("tokens", 17.0)], []) if known else ([], ["tokens"]))


@pytest.mark.parametrize("status", [400, 429, 500])
@pytest.mark.parametrize("headers", [JSON, EVENTS])
def test_errors_have_no_numbers(status: int, headers: Headers) -> None:
    one = reader((TOKENS, "json:/usage/completion_tokens"), (COST, "header:x-cost"), (SAFE, "stream:aborted"))
    assert read(one, headers, BODY, status=status) == Read([], [], [], None, 0)


def test_a_request_without_an_answer_has_none_either() -> None:
    one = reader((TOKENS, "json:/usage/completion_tokens"), (COST, "header:x-cost"), (SAFE, "stream:aborted"))
    assert one.end("failed", START + 1) == Read([], [], [], None, 0)


def test_of_an_answer_that_the_client_did_not_wait_for_nothing_is_missing() -> None:
    one = reader((TOKENS, "json:/usage/completion_tokens"), (SAFE, "stream:aborted"))
    assert read(one, JSON, BODY[:30], end="client_closed") == Read([], [], [], None, 0)


def seconds(name: str, high: float | None = 10.0) -> MetricPlan:
    return MetricPlan(name=name, type="bounded", source="answer", high=high)


WORDS = (
    (seconds("first"), "stream:first_token"),
    (seconds("gap"), "stream:longest_gap"),
    (seconds("all"), "stream:duration"),
    (TOKENS, "stream:tokens"),
    (SAFE, "stream:aborted"),
)


def test_of_a_stream_the_times_of_its_content_are_known() -> None:
    found = read(reader(*WORDS), EVENTS, *CHAT)
    assert found.stream == Stream(first_token=1.0, longest_gap=0.5, tokens=4, duration=2.75, aborted=False)
    assert dict(found.values) == {"first": 1.0, "gap": 0.5, "all": 2.75, "tokens": 4.0, "safe": 0.0}
    assert (found.unread, found.refused) == ([], [])


def test_pauses_are_those_between_pieces_with_content() -> None:
    assert read(reader(), EVENTS, chunk("a"), ROLE, DONE).stream == Stream(0.5, 0.0, 1, 1.75, False)
    stream = read(reader(), EVENTS, chunk("a") + chunk("b"), ROLE, b": ping\n\n", chunk("c")[:9], chunk("c")[9:]).stream
    assert stream == Stream(0.5, 2.0, 3, 2.75, False)


def test_of_a_stream_cut_short_by_the_client_the_rest_is_not_missed() -> None:
    one = reader(*WORDS, (COST, "json:/cost"))
    found = read(one, EVENTS, ROLE, chunk("Hel"), end="client_closed")
    assert dict(found.values) == {"first": 1.0, "gap": 0.0, "tokens": 1.0, "safe": 1.0}
    assert found.unread == []
    early = read(reader(*WORDS), EVENTS, ROLE, end="client_closed")
    assert (dict(early.values), early.unread) == ({"tokens": 0.0, "safe": 1.0}, [])


def test_of_an_answer_that_broke_off_nothing_is_read_that_a_whole_one_may_have_more_of() -> None:
    found = read(reader(*WORDS), EVENTS, ROLE, chunk("Hel"), chunk("lo"), USAGE, end="failed")
    assert found.stream == Stream(first_token=1.0, longest_gap=None, tokens=None, duration=None, aborted=False)
    assert dict(found.values) == {"first": 1.0, "safe": 0.0}
    assert found.unread == ["gap", "all", "tokens"]
    so_far = read(reader((COST, "json:/cost")), EVENTS, chunk("Hel", cost=0.1), end="failed")
    assert (so_far.values, so_far.unread) == ([], ["cost"])
    cut = read(reader((TOKENS, "json:")), JSON, b"12", end="failed")  # of 1200
    assert (cut.values, cut.unread) == ([], ["tokens"])


def test_a_stream_that_ends_without_content_is_counted() -> None:
    found = read(reader(*WORDS), EVENTS, ROLE, DONE)
    assert found.unread == ["first", "gap"]
    assert dict(found.values) == {"all": 1.25, "tokens": 0.0, "safe": 0.0}


def test_the_worst_streams_count_as_the_bound() -> None:
    found = read(reader((seconds("first", 0.2), "stream:first_token")), EVENTS, *CHAT)
    assert found.values == [("first", 0.2)]


def test_the_last_event_that_has_a_number_wins() -> None:
    pieces = [chunk("a", cost=0.1), chunk("b", cost=0.2), chunk('"cost": 7'), chunk("c", cost=None), b"data: {cost\n\n"]
    assert read(reader((COST, "json:/cost")), EVENTS, *pieces, DONE).values == [("cost", 0.2)]
    assert read(reader((TOKENS, "json:/0/1")), EVENTS, b"data: [[0, 8]]\n\n").values == [("tokens", 8.0)]
    assert read(reader((COST, "json:/cost")), EVENTS, *CHAT).unread == ["cost"]


@pytest.mark.parametrize(
    ("event", "content"),
    [
        (chunk("x"), True),
        (chunk('"'), True),
        (chunk(""), False),
        (chunk(None), False),
        (chunk(None, note='"content": "x"'), False),
        (b'data: {"choices":[{"text":" x"}]}\n\n', True),
        (b'data: {"choices":[{"delta":{"reasoning_content":"x","content":null}}]}\n\n', True),
        (b'data: {"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{\\"}"}}]}}]}\n\n', True),
        (b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"x"}\n\n', True),
        (b'event: response.output_text.done\ndata: {"type":"response.output_text.done","text":"x"}\n\n', False),
        (b'data: {"error":{"message":"no"}}\n\n', False),
        (b'data: {"choices":[{"delta":{"content":"\n\n', False),
        (b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n', True),
        (b'data: {"choices":[{"delta":{"content":"","refusal":"x"}}]}\n\n', True),
        (DONE, False),
    ],
)
def test_what_content_is_in_chat_completion_and_response_streams(event: bytes, content: bool) -> None:
    stream = read(reader(), EVENTS, event).stream
    assert stream is not None
    assert (stream.first_token is not None, stream.tokens) == (content, int(content))


def test_in_other_streams_every_event_with_data_is_content() -> None:
    one = reader((TOKENS, "stream:tokens"), protocol="http")
    assert read(one, EVENTS, b": ping\n\n", b"data: any\n\n", b"event: x\n\n", DONE).stream == Stream(
        1.0, 0.0, 1, 2.25, False
    )


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (b'data: {"response":{"usage":{"output_tokens":5}}}\n\n', 5),
        (b'data: {"usage" : {"output_tokens":6}}\n\n', 6),
        (b'data: {"usage":{"completion_tokens":"7"}}\n\n', 1),
        (b'data: {"usage":{"completion_tokens":18446744073709551615}}\n\n', 1),
        (b'data: {"usage":{"completion_tokens":-1}}\n\n', 1),
        (b'data: {"usage":{}}\n\n', 1),
        (b'data: {"other":{"usage":{"completion_tokens":8}}}\n\n', 1),
        (b'data: {"usage":{"completion_tokens":9}\n\n', 1),
    ],
)
def test_tokens_are_those_of_the_usage_or_else_the_events_with_content(usage: bytes, tokens: int) -> None:
    stream = read(reader(), EVENTS, chunk("x"), usage).stream
    assert stream is not None
    assert stream.tokens == tokens


def test_a_stream_may_be_packed() -> None:
    packer = zlib.compressobj(wbits=31)
    pieces = [packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) for piece in CHAT]
    headers = [*EVENTS, (b"content-encoding", b"gzip")]
    assert read(reader(), headers, *pieces).stream == Stream(1.0, 0.5, 4, 2.25 + 0.5, False)


def test_of_a_stream_that_cannot_be_unpacked_only_its_end_is_known() -> None:
    found = read(reader(*WORDS), [*EVENTS, (b"content-encoding", b"br")], *CHAT)
    assert found.stream == Stream(None, None, None, 2.75, False)
    assert found.unread == ["first", "gap", "tokens"]


def test_an_event_that_is_too_large_is_counted() -> None:
    found = read(reader(), EVENTS, chunk("x" * (1 << 20)), chunk("y"))
    assert found.oversized == 1
    assert found.stream == Stream(1.0, 0.0, 1, 1.25, False)


@given(st.lists(st.integers(0, len(b"".join(CHAT))), max_size=8))
def test_where_the_network_cuts_does_not_matter(cuts: list[int]) -> None:
    whole = b"".join(CHAT)
    pieces = [whole[start:end] for start, end in pairwise([0, *sorted(cuts), len(whole)])]
    found = read(reader((TOKENS, "json:/usage/completion_tokens")), EVENTS, *pieces)
    assert found.values == [("tokens", 4.0)]
    assert found.stream is not None
    assert found.stream.tokens == 4


FRAGMENTS = st.sampled_from(
    [*CHAT, USAGE[:40], b'data: {"usage":', b'"delta":{"content":"', b"\n\n", b"\r", b"[[[{", b"\xff"]
)


@given(
    st.sampled_from([JSON, EVENTS, []]),
    st.sampled_from([b"identity", b"gzip", b"deflate", b"br", b"\xff"]),
    st.lists(FRAGMENTS | st.binary(max_size=30), max_size=6),
    st.sampled_from(get_args(End)),
)
def test_nothing_that_comes_raises_anything(headers: Headers, encoding: bytes, pieces: list[bytes], end: End) -> None:
    one = reader((COST, "header:x-cost"), (TOKENS, "json:/usage/completion_tokens"), *WORDS[:3])
    found = read(one, [*headers, (b"content-encoding", encoding), (b"x-cost", b"\xff")], *pieces, end=end)
    assert found.unread[0] == "cost"


def test_what_is_read_is_left_as_outcomes_of_the_decision() -> None:
    assignment = Assignment(7, 1, "chat", "exp", "s", "a", 1.0, 0, b"", (), 1)
    facts = list(Read([("tokens", 4.0)], ["cost"], ["safe"], None, 0).facts(assignment, 99))
    assert facts == [
        Outcome("", 99, 7, "chat", "exp", "tokens", 4.0, 1),
        Rejection(99, 7, "chat", "exp", "value_rejected"),
    ]


@pytest.mark.parametrize(("protocol", "always"), [("oip", False), ("http", False), ("openai", True)])
def test_nothing_is_read_where_nothing_is_asked_for(protocol: str, always: bool) -> None:
    assert (Readings.of(plan(protocol)) is not None) == always
