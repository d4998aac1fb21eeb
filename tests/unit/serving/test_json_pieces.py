"""JSON with long lists, parsed in pieces: the same as at once, and in no call that stops all threads for long."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.onnx import Signature, TensorSpec
from gateway.serving.oip import Codec, pieces
from gateway.serving.oip.request import LARGEST

PIECE = 8
TINY = pytest.mark.usefixtures("small")
FLAT = st.lists(st.integers(-99, 10**6) | st.floats(allow_nan=False) | st.booleans() | st.none(), max_size=30)
NUMBERS: st.SearchStrategy[Any] = (
    FLAT | st.lists(st.lists(st.integers(0, 99), max_size=4), max_size=12) | st.lists(FLAT | st.just({}), max_size=4)
)
TEXTS = st.text('[]{},:"\\1 ', max_size=30)
ITEMS = st.fixed_dictionaries({"data": NUMBERS | TEXTS}, optional={"name": TEXTS, "more": NUMBERS})
INPUTS = st.lists(ITEMS | NUMBERS, max_size=4)
DOCUMENTS = st.fixed_dictionaries({"inputs": INPUTS | NUMBERS | TEXTS}, optional={"id": TEXTS, "outputs": INPUTS})


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE", PIECE)


def outcome(loads: Any, text: bytes) -> tuple[str, Any]:
    try:
        return "", loads(text)
    except orjson.JSONDecodeError as error:
        return str(error), None


@TINY
@given(DOCUMENTS, st.sampled_from([None, orjson.OPT_INDENT_2]))
def test_it_is_what_the_parser_makes_of_the_whole(document: Any, option: int | None) -> None:
    text = orjson.dumps(document, option=option)
    assert pieces.loads(text) == orjson.loads(text)


@TINY
@given(DOCUMENTS, st.data())
def test_what_is_no_json_is_refused_in_the_same_words(document: Any, data: st.DataObject) -> None:
    text = orjson.dumps(document)
    at = data.draw(st.integers(0, len(text)))
    edited = text[:at] + data.draw(st.sampled_from([b",", b"[", b"]", b'"', b"{", b"1", b" ", b"null"])) + text[at:]
    assert outcome(pieces.loads, edited) == outcome(orjson.loads, edited)


@TINY
@pytest.mark.parametrize(
    "text",
    [
        b'{"inputs":[{"data":[%b]}]}' % numbers
        for numbers in (b"1,2,3,4,5,", b",1,2,3,4,5", b"1,2,3,4,,5,6,7", b"1, 2 , 3,\n4,5,6", b"1,2,3,4,5,6,7,8, ")
    ]
    + [
        b'{"id":"[1,2,3,4,5]","inputs":[{"data":[null]}]}',
        b'{"inputs":[{"data":[1,2,3,4,5]},{"data":[null]}]}',
        b'{"inputs":[{"data":[1,2,3,4,5],"data":[5,4,3,2,1]}]}',
        b'{"inputs":[{"data":[1,2,3,4,5]}],"outputs":[{"data":[5,4,3,2,1]}]}',
        b"[[1,2,3,4,5,6,7]]",
        b'{"inputs":[{"data":[[1,2],[3,4],[5,6],[7,8],]}]}',
        b'{"inputs":[{"data":[[1,2] , [3,4] ,[5,6], [7,8],[],[]]}]}',
        b'{"inputs":[{"data":[[[1,2],[3,4]],[[5,6],[7,8]]]}]}',
        b'{"inputs":[{"data":[[1,2,3,4,5,6],7,[8],9,10,11]}]}',
        b"[1,2,3,4,5,6,7",
    ],
)
def test_in_doubt_it_is_parsed_as_a_whole(text: bytes) -> None:
    assert outcome(pieces.loads, text) == outcome(orjson.loads, text)


@pytest.mark.parametrize("data", [[None], [1] * 50_000, "[" + "1," * 50_000 + "1]", 5])
def test_a_list_that_is_a_text_or_elsewhere_stays_there(data: Any) -> None:
    long = [1] * 50_000
    for document in (
        {"id": str(long), "inputs": [{"data": data}]},
        {"more": long, "inputs": data},
        {"data": long},
        long,
    ):
        text = orjson.dumps(document)
        assert pieces.loads(text) == document


@pytest.mark.anyio
@pytest.mark.parametrize("columns", [1, 64], ids=["flat", "rows"])
async def test_c20_the_largest_json_stops_the_loop_for_moments_only(columns: int) -> None:
    shape = [LARGEST // 132, 64]
    codec = Codec("m", Signature((TensorSpec("x", "FP32", (-1, 64)),), ()), LARGEST)
    data: list[Any] = [1] * math.prod(shape) if columns == 1 else [[1] * columns] * shape[0]
    body = orjson.dumps(
        {"id": "urn:with:colons", "inputs": [{"name": "x", "datatype": "FP32", "shape": shape, "data": data}]}
    )
    assert len(body) > 0.9 * LARGEST
    assert codec.heavy(body, {})
    worst = []
    for _ in range(5):
        parsing = asyncio.ensure_future(asyncio.to_thread(codec.parse, body, {}))
        longest = 0.0
        while not parsing.done():
            began = time.perf_counter()
            await asyncio.sleep(0)
            longest = max(longest, time.perf_counter() - began)
        worst.append(longest)
        assert (await parsing).inputs["x"].shape == tuple(shape)
    assert min(worst) < 0.05, worst  # the machine has other things to do, but not every time
