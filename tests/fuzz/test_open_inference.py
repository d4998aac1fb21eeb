"""Any body under any headers is a request that fits or a RequestError, at a price that its size bounds."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.backends.onnx import Signature, TensorSpec
from gateway.errors import RequestError
from gateway.serving.oip import Codec, InferRequest
from tests.fuzz.mutations import documents, edited
from tests.fuzz.profile import FUZZ, frugal

MAX_BODY = 1 << 18
LONGEST_MESSAGE = 2_000  # characters: what a client sent is not sent back to it
WORDS = [
    *("inputs", "outputs", "id", "datatype", "shape", "data", "parameters", "binary_data_size", "binary_data"),
    *("binary_data_output", "x", "t", "y", "z", "FP32", "INT64", "BYTES", "FP16", "BOOL"),
]
OUTPUTS = (TensorSpec("y", "FP32", (-1, 2)), TensorSpec("z", "BYTES", (-1,)))
SIGNATURES = {
    "floats": Signature((TensorSpec("x", "FP32", (-1, 3)),), OUTPUTS),
    "halves": Signature((TensorSpec("x", "FP16", (2,)),), (TensorSpec("y", "FP16", (-1, 2)),)),
    "several": Signature(
        (TensorSpec("x", "INT64", (-1, -1)), TensorSpec("t", "BYTES", (-1,)), TensorSpec("b", "BOOL", (1, 2))), OUTPUTS
    ),
}
CODECS = {name: Codec("m", signature, MAX_BODY) for name, signature in SIGNATURES.items()}
FLOATS = {"name": "x", "datatype": "FP32", "shape": [2, 3], "data": [[0, 1, 2], [3.5, -1e3, 5]]}
SEVERAL = [
    {"name": "x", "datatype": "INT64", "shape": [2, 1], "data": [[1], [-(2**63)]]},
    {"name": "t", "datatype": "BYTES", "shape": [2], "data": ["a", "\u00e9\U0001f600"]},
    {"name": "b", "datatype": "BOOL", "shape": [1, 2], "data": [True, False]},
]
ASKED = {"id": "7", "parameters": {"binary_data_output": True}, "outputs": [{"name": "y"}]}
AS_JSON: list[dict[str, Any]] = [{"inputs": [FLOATS]}, {"inputs": SEVERAL}, {"inputs": [FLOATS], **ASKED}]


def _binary(inputs: list[tuple[str, str, list[int], bytes]]) -> tuple[bytes, bytes]:
    """The JSON part and what follows it."""
    described = [
        {"name": name, "datatype": kind, "shape": shape, "parameters": {"binary_data_size": len(data)}}
        for name, kind, shape, data in inputs
    ]
    return orjson.dumps({"inputs": described}), b"".join(data for _, _, _, data in inputs)


AS_BYTES = [
    _binary([("x", "FP32", [2, 3], np.arange(6, dtype="<f4").tobytes())]),
    _binary([("x", "FP16", [2], np.ones(2, "<f2").tobytes())]),
    _binary(
        [
            ("x", "INT64", [1, 2], np.arange(2, dtype="<i8").tobytes()),
            ("t", "BYTES", [2], b"\x01\0\0\0a\x02\0\0\0\xc3\xa9"),
            ("b", "BOOL", [1, 2], b"\x01\0"),
        ]
    ),
]
NOT_FINITE = tuple(np.array([value], "<f4").tobytes() for value in (np.nan, np.inf, -np.inf))


def taken(codec: str, body: bytes, headers: dict[bytes, bytes]) -> InferRequest | None:
    """What the codec makes of it; None if it is refused."""
    refusal: RequestError | None = None
    with frugal(allocated=(1 << 20) + 64 * max(len(body), MAX_BODY)):
        try:
            CODECS[codec].heavy(body, headers)
            request = CODECS[codec].parse(body, headers)
        except RequestError as error:
            refusal = error
    if refusal is None:
        _fits(SIGNATURES[codec], request)
        return request
    assert 400 <= refusal.status < 500
    assert len(str(refusal)) <= LONGEST_MESSAGE
    return None


def _fits(signature: Signature, request: InferRequest) -> None:
    """What went on to a model is what the model takes."""
    assert request.inputs.keys() == {spec.name for spec in signature.inputs}
    for spec in signature.inputs:
        values = request.inputs[spec.name]
        assert len(values.shape) == len(spec.shape)
        assert all(size in (given, -1) and given > 0 for given, size in zip(values.shape, spec.shape, strict=True))
        assert values.dtype == spec.dtype
        if values.dtype.kind == "f":
            assert np.isfinite(values).all()
        if spec.datatype == "BYTES":
            assert all(type(value) is str for value in values.reshape(-1))
    assert set(request.wanted or ()) <= {spec.name for spec in signature.outputs}


@FUZZ
@given(st.sampled_from(list(CODECS)), edited([orjson.dumps(document) for document in AS_JSON]))
@example("floats", b'{"inputs": [], "inputs": []}')
@example("floats", b'{"id": ' + b"1" * 5000 + b"}")
def test_bytes_of_json_requests_may_be_anything(codec: str, body: bytes) -> None:
    taken(codec, body, {})


@FUZZ
@given(st.sampled_from(list(CODECS)), documents(AS_JSON, WORDS), st.booleans())
def test_values_of_json_requests_may_be_anything(codec: str, document: Any, as_header: bool) -> None:
    body = json.dumps(document).encode()
    taken(codec, body, {b"inference-header-content-length": b"%d" % len(body)} if as_header else {})


@FUZZ
@given(
    st.sampled_from(list(CODECS)),
    edited([text for text, _ in AS_BYTES], (b"0", b"-1", b"8", b"9" * 20, b'"BYTES"', b"[1,2]")),
    edited([data for _, data in AS_BYTES], (*NOT_FINITE, b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x02", b"\xc3")),
    st.one_of(st.just(0), st.integers(-3, 3)),
)
def test_binary_tensors_may_be_anything(codec: str, text: bytes, data: bytes, off: int) -> None:
    taken(codec, text + data, {b"inference-header-content-length": b"%d" % (len(text) + off)})


@FUZZ
@given(
    st.sampled_from(list(CODECS)),
    st.sampled_from(
        [*map(orjson.dumps, AS_JSON), *(text + data for text, data in AS_BYTES), gzip.compress(bytes(1 << 20))]
    ),
    edited([b"gzip", b"deflate", b"identity", b"br"], (b" ", b",", b"\xff", b"G")),
    edited([b"0", b"90", b"000120"], (b"-", b"+", b"_", b"\xb2", b"9" * 5000)),
    edited([b"gzip;q=0.5, deflate", b"*"], (b"q=", b";q=nan", b",,")),
    st.sampled_from([None, gzip.compress, zlib.compress]),
)
def test_headers_may_be_anything(
    codec: str, body: bytes, coding: bytes, length: bytes, accept: bytes, compressed: Any
) -> None:
    every = {b"content-encoding": coding, b"inference-header-content-length": length, b"accept-encoding": accept}
    body = body if compressed is None else compressed(body)
    for names in ([b"content-encoding"], [b"inference-header-content-length"], list(every)):
        taken(codec, body, {name: every[name] for name in names})


def _doubled(count: int) -> bytes:
    keys = ", ".join(f'"k{number}": 0' for number in range(count))
    return f'{{"inputs": [{json.dumps(FLOATS)}], {keys}, "k0": 1}}'.encode()


LARGE = {
    "a key twice among very many": _doubled(250_000),
    "a shape of very many dimensions": orjson.dumps({"inputs": [FLOATS | {"shape": [2**63] * 100_000}]}),
    "very many inputs": orjson.dumps({"inputs": [FLOATS | {"name": f"x{n}"} for n in range(20_000)]}),
    "a long name": orjson.dumps({"inputs": [FLOATS | {"name": "x" * 1_000_000}]}),
    "a long datatype": orjson.dumps({"inputs": [FLOATS | {"datatype": "x" * 1_000_000}]}),
    "very many outputs": orjson.dumps(AS_JSON[0] | {"outputs": [{"name": f"y{n}"} for n in range(60_000)]}),
    "a long number": orjson.dumps(AS_JSON[0]).replace(b"0,", b"0." + b"1" * 1_000_000 + b",", 1),
    "nested as deep as it goes": b'{"inputs": ' + b"[" * 65_000,
    "strings full of colons": orjson.dumps(AS_JSON[0] | {"id": ":" * 1_000_000}),
}


@pytest.mark.parametrize("body", LARGE.values(), ids=LARGE.keys())
def test_large_requests_are_refused_at_the_price_of_their_size(body: bytes) -> None:
    codec = Codec("m", SIGNATURES["floats"], 16 << 20)
    message = ""
    with frugal(seconds=2.0):
        try:
            codec.parse(body, {})
        except RequestError as error:
            message = str(error)
    assert len(message) <= LONGEST_MESSAGE
