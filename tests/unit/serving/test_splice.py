"""A value replaced in place: the right one, all of it, and not one byte besides."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import RequestError
from gateway.serving.wire.splice import every_top_level, replaced, top_level

KEY = b"model"


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"model":"a"}', b'"a"'),
        (b' \r\n{ "model"\t:\n "a" , "n": 1 } ', b'"a"'),
        (b'{"messages": [{"model": "inner"}], "model": "a"}', b'"a"'),
        (b'{"mod\\u0065l": "a"}', b'"a"'),
        (b'{"\\u006D\\u006fdel": "a", "x": "\\u006d"}', b'"a"'),
        (b'{"text": "\\"model\\": \\"b\\"", "model": "a"}', b'"a"'),
        (b'{"\\"model": 1, "model": 2}', b"2"),
        (b'{"text": "C:\\\\", "model": 2}', b"2"),
        (b'{"text": "\\\\\\"", "model": 2}', b"2"),
        (b'{"other": "model", "model": null}', b"null"),
        (b'{"model": {"model": ["}", {"model": "]"}]}, "x": {}}', b'{"model": ["}", {"model": "]"}]}'),
        (b'{"model": "\\"}\\\\", "x": 1}', b'"\\"}\\\\"'),
        (b'{"model": -1.5e3}', b"-1.5e3"),
        (b'{"x": "{{[[", "model": ""}', b'""'),
    ],
)
def test_the_value_of_the_outermost_key_is_found(body: bytes, value: bytes) -> None:
    span = top_level(body, KEY)
    assert span is not None
    assert body[span.start : span.end] == value
    assert replaced(body, [span], b'"new"') == body[: span.start] + b'"new"' + body[span.end :]


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"17",
        b'"model"',
        b'["model", "x"]',
        b'[{"model": 1}]',
        b'{"a": {"model": 1}}',
        b'{"a": "model"}',
        b'{"models": 1, "amodel": 1, "\\nmodel": 1}',
        b'{"mod\\\\u0065l": 1}',
        b'{"Model": 1, "MOD\\u0065L": 1}',
    ],
)
def test_no_other_key_is_taken_for_it(body: bytes) -> None:
    assert top_level(body, KEY) is None


@pytest.mark.parametrize("body", [b'{"model": 1, "model": 1}', b'{"model": {"model": 1}, "x": 2, "mod\\u0065l": 3}'])
def test_a_key_that_is_there_twice_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError, match=r"'model' must not be repeated: which one counts\?"):
        top_level(body, KEY)
    assert len(every_top_level(body, KEY)) == 2


@pytest.mark.parametrize(
    "body",
    [
        b"{" + b'"model":1,' * 60_000 + b'"x":2}',
        b'{"model":[1],' * 40_000,
        b'{"model":["' + b'\\"' * 300_000,
        b'{"model":["\n' + b'\\"' * 300_000 + b"\\\n",
    ],
)
def test_the_time_it_takes_grows_with_the_text_and_not_with_its_square(body: bytes) -> None:
    began = time.process_time()
    replaced(body, every_top_level(body, KEY), b'"new"')
    assert time.process_time() - began < 1.0


def test_a_key_that_could_be_spelled_in_more_ways_is_not_looked_for() -> None:
    with pytest.raises(ValueError, match="letters, digits and underscores"):
        top_level(b"{}", b"a/b")


NAMES = st.sampled_from(["model", "\\u006dodel", "mo\\u0064el", "Model", "a", '\\"model', "model\\\\", "model\\n", "é"])
TEXTS = st.one_of(NAMES, st.text(max_size=8).map(lambda text: json.dumps(text)[1:-1]))
SPACES = st.sampled_from(["", "", " ", "\n\t", "\r\n"])


@st.composite
def written(draw: st.DrawFn, depth: int = 0) -> str:
    """JSON as nobody would write it: any blanks, any escapes, the same names again and again."""
    kind = draw(st.sampled_from(["text", "scalar"] if depth == 3 else ["object", "object", "array", "text", "scalar"]))
    blank = draw(SPACES)
    if kind == "scalar":
        return blank + draw(st.sampled_from(["0", "-1.5e+3", "true", "false", "null"])) + draw(SPACES)
    if kind == "text":
        return f'{blank}"{draw(TEXTS)}"{draw(SPACES)}'
    values = draw(st.lists(written(depth + 1), max_size=3))
    if kind == "array":
        return blank + "[" + (",".join(values) or draw(SPACES)) + "]" + draw(SPACES)
    members = [f'{draw(SPACES)}"{draw(TEXTS)}"{draw(SPACES)}:{value}' for value in values]
    return blank + "{" + (",".join(members) or draw(SPACES)) + "}" + draw(SPACES)


class _Members(list[tuple[str, Any]]):
    """The members of an object with all repetitions, told apart from an array."""


def members(body: bytes) -> Any:
    return json.loads(body, object_pairs_hook=_Members)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(written())
def test_in_any_document_the_values_of_that_key_and_no_other_bytes_change(text: str) -> None:
    body = text.encode()
    document = members(body)
    names = [name for name, _ in document] if type(document) is _Members else []
    spans = every_top_level(body, KEY)
    assert len(spans) == names.count("model")
    for span, place in zip(spans, [at for at, name in enumerate(names) if name == "model"], strict=True):
        assert members(body[span.start : span.end]) == document[place][1]
        edited = body[: span.start] + b'"new"' + body[span.end :]
        after = members(edited)
        assert after == [*document[:place], ("model", "new"), *document[place + 1 :]]


@given(st.binary(max_size=60) | st.lists(st.sampled_from([b'"', b"{", b"\\", b'"model":', b"}", b","])).map(b"".join))
def test_what_is_no_json_raises_nothing(body: bytes) -> None:
    spans = every_top_level(body, KEY)
    for span in spans:
        assert 0 <= span.start < span.end <= len(body)
    assert len(replaced(body, spans, b"")) == len(body) - sum(end - start for start, end in spans)
