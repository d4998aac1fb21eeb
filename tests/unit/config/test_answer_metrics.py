"""Metrics read from answers: every rule by a slip, every default, what evidence and workers learn of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from gateway.config.load import LoadedConfig, warnings
from gateway.config.places import Reading, parse_reading
from gateway.config.schema import json_schema
from gateway.config.tree import read
from gateway.plan import MetricPlan, ReadingPlan
from tests.unit.config.slips import Slip, line_of
from tests.unit.config.test_compiled import defined, differences, planned, running
from tests.unit.config.test_config_schema import fits

if TYPE_CHECKING:
    from collections.abc import Callable

CHAT = """\
version: 1
endpoints:
  chat:
    protocol: http
    variants:
      a:
        role: champion
        url: http://large:8000
      b:
        role: challenger
        url: http://small:8000
    metrics:
      liked:
        type: binary
        direction: increase
        source: outcome
        window: 1h
      tokens:
        type: count
        cap: 4000
        source: answer
        from: json:/usage/completion_tokens
        direction: decrease
      cost:
        type: bounded
        bounds: [0, 1]
        source: answer
        from: header:X-Cost
        direction: decrease
      first_token:
        type: bounded
        bounds: [0, 10]
        source: answer
        from: stream:first_token
        window: 5m
        direction: decrease
      aborted:
        type: binary
        source: answer
        from: stream:aborted
        direction: decrease
      ratio:
        type: ratio
        numerator: tokens
        denominator: words
        source: outcome
        direction: decrease
      words:
        type: count
        cap: 9000
        source: answer
        from: json:/words
        direction: increase
    experiment:
      id: smaller
      objective:
        metric: liked
        min_effect: 0.01
      guardrails:
        - {metric: tokens, margin: 20}
        - {metric: first_token, margin: 0.1}
      signals:
        - aborted
        - ratio
      stages:
        - {traffic: 50%}
      decision:
        cycle: 24h
"""
METRICS = "endpoints.chat.metrics"
POINTER = "json:/usage/completion_tokens"

GENERAL = "expected header:<name>, json:<pointer> or stream:<word> such as header:x-cost"
SLIPS: list[Slip] = [
    (f"        from: {POINTER}\n", "", "tokens", f'expected a place for source answer, such as from: "{POINTER}"'),
    ("window: 1h", "from: header:x #<", "liked.from", "expected only with source answer, found with source outcome"),
    (
        "answer\n        from: header:X-Cost",
        "gateway\n        from: header:x #<",
        "cost.from",
        "expected only with source answer, found with source gateway",
    ),
    ("from: header:X-Cost", "form: header:x #<", "cost.form", "unknown key: did you mean 'from'?"),
    ("answer", "answers #<", "tokens.source", "'outcome' or 'answer', found 'answers': did you mean 'answer'?"),
    (POINTER, "json:usage #<", "tokens.from", "found 'json:usage': a pointer begins with /"),
    (POINTER, "json:/a~2 #<", "tokens.from", GENERAL),
    (POINTER, "usage #<", "tokens.from", GENERAL),
    (POINTER, "header:x cost #<", "tokens.from", GENERAL),
    ("first_token\n", "first_tokn #<\n", "first_token.from", "found 'stream:first_tokn': did you mean 'first_token'?"),
    ("stream:first_token", "stream:aborted", "first_token.type", "expected binary for stream:aborted, found bounded"),
    (
        "stream:aborted",
        "stream:tokens",
        "aborted.type",
        "expected bounded, count or unbounded for stream:tokens, found binary",
    ),
    (
        "bounded",
        "latency #<",
        "cost.type",
        "expected binary, bounded, count or unbounded for source answer, found late",
    ),
    ("outcome\n        dir", "answer\n        dir", "ratio.type", "count or unbounded for source answer, found ratio"),
    (
        "window: 5m",
        "missing: zero #<",
        "first_token.missing",
        "expected exclude or bounds for type bounded, found zero",
    ),
    ("window: 5m", "aggregate: sum #<", "first_token.aggregate", "expected first or max for type bounded, found sum"),
    ("from: json:/words", "from: json:/w\n        window: 2m", "ratio.denominator", "of tokens, 1m, found 2m of words"),
]


@pytest.mark.parametrize(("old", "new", "key", "words"), SLIPS)
def test_a_slip_is_named_with_line_and_key(
    problems: Callable[[str], list[str]], old: str, new: str, key: str, words: str
) -> None:
    assert old in CHAT
    text, key = CHAT.replace(old, new, 1), f"{METRICS}.{key}"
    found = problems(text)
    place = f"{line_of(text, key)}: {key}: "
    assert [problem for problem in found if problem.startswith(place) and words in problem], (place, found)


def test_tensors_come_in_no_event_streams(problems: Callable[[str], list[str]]) -> None:
    found = problems(CHAT.replace("protocol: http", "protocol: oip"))
    assert [problem.split(": ", 1)[1] for problem in found] == [
        f"{METRICS}.{name}.from: expected header: or json: for protocol: oip, which has no event streams,"
        f" found 'stream:{name}'"
        for name in ("first_token", "aborted")
    ]


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("header:X-Cost", Reading("header", "x-cost")),
        ("json:/a~1b/~0/0/", Reading("json", "/a~1b/~0/0/")),
        ("stream:longest_gap", Reading("stream", "longest_gap")),
    ],
)
def test_places(text: str, reading: Reading) -> None:
    assert parse_reading(text) == reading
    assert str(reading) == (text.lower() if reading.kind == "header" else text)


@pytest.mark.parametrize("text", ["", "json:", "json:" + "/x" * 101, "header:", "stream:", "Header:x", 3, None])
def test_no_places(text: object) -> None:
    with pytest.raises(ValueError, match="expected "):
        parse_reading(text)


def test_what_is_not_written_has_the_defaults(accepted: Callable[[str], LoadedConfig]) -> None:
    loaded = accepted(CHAT)
    assert warnings(loaded) == []
    metrics = loaded.config.endpoints["chat"].metrics
    chosen = {name: (one.window, one.grace, one.aggregate, one.missing) for name, one in metrics.items()}
    assert chosen == {
        "liked": (3600, 0, "first", "zero"),
        "tokens": (60, 0, "sum", "zero"),
        "cost": (60, 0, "first", "exclude"),
        "first_token": (300, 0, "first", "exclude"),
        "aborted": (60, 0, "first", "zero"),
        "ratio": (None, None, None, "zero"),
        "words": (60, 0, "sum", "zero"),
    }


def test_a_config_spelled_out_again_is_the_same(accepted: Callable[[str], LoadedConfig]) -> None:
    config = accepted(CHAT).config
    spelled = config.model_dump(mode="json", exclude_none=True)
    assert accepted(json.dumps(spelled)).config == config
    assert spelled["endpoints"]["chat"]["metrics"]["cost"]["from"] == "header:x-cost"


@pytest.mark.parametrize("place", [POINTER, "header:X-Cost", "stream:aborted"])
def test_the_json_schema_takes_what_the_gateway_takes(place: str) -> None:
    schema = json_schema()
    assert fits(read(CHAT.encode(), "").data, schema, schema)
    for wrong in ("json:usage", "json:/~2", "stream:first", "header:a b", "cost"):
        assert not fits(read(CHAT.replace(place, wrong).encode(), "").data, schema, schema)


def test_to_the_evidence_it_is_an_outcome(accepted: Callable[[str], LoadedConfig]) -> None:
    definition = defined(accepted(CHAT), "chat")
    assert {metric.source for metric in definition.metrics} == {"outcome"}
    tokens = definition.metric("tokens")
    assert differences(tokens) == {
        "read": True,
        "high": 4000.0,
        "window_us": 60_000_000,
        "missing": "zero",
        "aggregate": "sum",
        "margin": 20.0,
        "max_missing": 1.0,
    }
    assert all(definition.bets(metric) for metric in definition.metrics)


def test_workers_learn_where_to_read_while_there_is_an_experiment(accepted: Callable[[str], LoadedConfig]) -> None:
    loaded = accepted(CHAT)
    chat = planned(loaded, running(loaded))["chat"]
    assert chat.readings == (
        ReadingPlan(metric="tokens", kind="json", what="/usage/completion_tokens"),
        ReadingPlan(metric="cost", kind="header", what="x-cost"),
        ReadingPlan(metric="first_token", kind="stream", what="first_token"),
        ReadingPlan(metric="aborted", kind="stream", what="aborted"),
        ReadingPlan(metric="words", kind="json", what="/words"),
    )
    assert chat.metrics[1] == MetricPlan(name="tokens", type="count", source="answer", low=0.0, high=None)
    fixed = accepted(CHAT[: CHAT.index("    experiment:")] + "    traffic:\n      a: 50%\n      b: 50%\n")
    assert planned(fixed, running(fixed))["chat"].readings == ()
