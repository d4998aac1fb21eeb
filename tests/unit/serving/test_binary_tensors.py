"""The binary tensor data extension: every byte accounted for, both ways."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gateway.backends.onnx import Signature, TensorSpec
from gateway.errors import RequestError, ValueRejected
from gateway.serving.oip import HEADER_LENGTH, Codec, InferRequest

NUMPY = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}


def codec(datatype: str, *shape: int) -> Codec:
    spec = (datatype, shape or (-1,))
    return Codec("m", Signature((TensorSpec("x", *spec),), (TensorSpec("y", *spec),)), 1 << 20)


def described(datatype: str, shape: list[int], size: int | None, name: str = "x", **more: Any) -> dict[str, Any]:
    parameters = {} if size is None else {"parameters": {"binary_data_size": size}}
    return {"name": name, "datatype": datatype, "shape": shape} | parameters | more


def sent(data: bytes, *inputs: dict[str, Any], **more: Any) -> tuple[bytes, dict[bytes, bytes]]:
    text = orjson.dumps({"inputs": inputs} | more)
    return text + data, {HEADER_LENGTH: b"%d" % len(text)}


def read(datatype: str, data: bytes, shape: list[int], *expected: int) -> NDArray[Any]:
    body, headers = sent(data, described(datatype, shape, len(data)), parameters={"binary_data_output": True})
    request = codec(datatype, *expected).parse(body, headers)
    return request.inputs["x"]


def answered(headers: list[tuple[bytes, bytes]], body: bytes) -> tuple[dict[str, Any], bytes]:
    """JSON part and binary part, cut as the header says."""
    length = int(dict(headers)[HEADER_LENGTH])
    return json.loads(body[:length]), body[length:]


@pytest.mark.parametrize(("datatype", "dtype"), NUMPY.items())
def test_every_datatype_survives_the_way_there_and_back(datatype: str, dtype: str) -> None:
    values = np.array([[0, 1, 1], [1, 0, 1]], dtype)
    given = read(datatype, values.tobytes(), [2, 3], -1, 3)
    assert given.dtype == values.dtype
    assert np.array_equal(given, values)
    assert given.flags.aligned
    headers, body = codec(datatype, -1, 3).render(InferRequest({}, "id", {"y": True}), [given])
    document, data = answered(headers, body)
    assert document["outputs"] == [described(datatype, [2, 3], len(data), "y")]
    assert document["id"] == "id"
    assert data == values.tobytes()
    assert (b"content-type", b"application/octet-stream") in headers


@given(st.lists(st.text(max_size=5), min_size=1, max_size=8))
def test_strings_survive_the_way_there_and_back(texts: list[str]) -> None:
    values = np.array(texts, object)
    headers, body = codec("BYTES").render(InferRequest({}, None, {"y": True}), [values])
    document, data = answered(headers, body)
    assert document["outputs"][0]["parameters"] == {"binary_data_size": len(data)}
    assert read("BYTES", data, [len(texts)]).tolist() == texts


def test_big_endian_and_strided_outputs_are_written_little_endian_and_row_by_row() -> None:
    values = np.arange(6, dtype=">i4").reshape(2, 3).T
    headers, body = codec("INT32").render(InferRequest({}, None, {"y": True}), [values])
    assert answered(headers, body)[1] == np.array([0, 3, 1, 4, 2, 5], "<i4").tobytes()


def test_json_and_binary_inputs_mix_in_the_order_of_the_request() -> None:
    specs = tuple(TensorSpec(name, "INT16", (-1,)) for name in "abc")
    reader = Codec("m", Signature(specs, specs), 1 << 20)
    one, two = np.array([1, 2], "<i2"), np.array([3], "<i2")
    body, headers = sent(
        two.tobytes() + one.tobytes(),
        described("INT16", [1], 2, "c"),
        described("INT16", [1], None, "b", data=[9]),
        described("INT16", [2], 4, "a"),
        outputs=[{"name": "b", "parameters": {"binary_data": False}}, {"name": "c"}],
        parameters={"binary_data_output": True, "priority": 3},
    )
    request = reader.parse(body, headers)
    assert {name: values.tolist() for name, values in request.inputs.items()} == {"a": [1, 2], "b": [9], "c": [3]}
    assert request.wanted == {"b": False, "c": True}
    document, data = answered(*reader.render(request, [one, two, two]))
    assert [output["name"] for output in document["outputs"]] == ["b", "c"]
    assert document["outputs"][0]["data"] == [3]
    assert data == two.tobytes()


def test_a_header_of_zero_makes_the_body_one_row_and_all_outputs_binary() -> None:
    row = np.arange(3, dtype="<f4")
    for shape in [(-1, 3), (-1, -1), (1, 3)]:
        request = codec("FP32", *shape).parse(row.tobytes(), {HEADER_LENGTH: b"0"})
        assert request.inputs["x"].tolist() == [[0, 1, 2]]
        assert request.wanted == {"y": True}
    text = codec("BYTES", -1, 1).parse("straße".encode(), {HEADER_LENGTH: b"0"})
    assert text.inputs["x"].tolist() == [["straße"]]


@pytest.mark.parametrize(
    ("datatype", "shape", "body", "words"),
    [
        ("FP32", (-1, 3), b"\0" * 11, "takes 12 bytes of FP32, got 11"),
        ("FP32", (-1, -1), b"\0" * 11, "takes 8 bytes of FP32, got 11"),
        ("FP32", (-1, 3), b"", "takes 12 bytes of FP32, got 0"),
        ("FP32", (-1, -1), b"", "takes 4 bytes of FP32, got 0"),
        ("FP32", (-1, -1, -1), b"\0" * 12, "cannot tell the shape"),
        ("BYTES", (-1, 2), b"text", "a raw body is one element"),
    ],
)
def test_a_raw_body_that_is_no_row_is_refused(datatype: str, shape: tuple[int, ...], body: bytes, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        codec(datatype, *shape).parse(body, {HEADER_LENGTH: b"0"})


def test_a_raw_body_needs_a_model_with_one_input() -> None:
    two = Signature((TensorSpec("a", "FP32", (1,)), TensorSpec("b", "FP32", (1,))), ())
    with pytest.raises(RequestError, match="needs a model with one input"):
        Codec("m", two, 100).parse(b"\0" * 4, {HEADER_LENGTH: b"0"})


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_with_its_place(datatype: str, value: float) -> None:
    values = np.array([[1, 2], [value, np.nan]], NUMPY[datatype])
    with pytest.raises(ValueRejected, match="input 'x': element 2 is not finite"):
        read(datatype, values.tobytes(), [2, 2], -1, 2)


def test_a_boolean_is_a_byte_of_zero_or_one() -> None:
    with pytest.raises(ValueRejected, match="element 2 is neither 0 nor 1"):
        read("BOOL", b"\0\1\2", [3])


@pytest.mark.parametrize(
    ("data", "count", "words"),
    [
        (b"\5\0\0\0abc", 1, "ends inside element 0"),
        (b"\1\0\0\0a\1\0", 1, "2 bytes are left after 1 elements"),
        (b"\1\0\0\0a\1\0\0", 2, "ends inside element 1"),
        (b"\xff\xff\xff\xffa", 1, "ends inside element 0"),
        (b"\0\0\0\0", 10**9, "take at least 4000000000 bytes, got 4"),
        (b"\2\0\0\0\xff\xfe", 1, "element 0 is not valid UTF-8"),
    ],
)
def test_strings_that_do_not_add_up_are_refused(data: bytes, count: int, words: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(RequestError, match=words):
            read("BYTES", data, [count])
        assert tracemalloc.get_traced_memory()[1] < 1 << 20  # no room is made for what is only declared
    finally:
        tracemalloc.stop()


X = described("FP32", [2], 8)


@pytest.mark.parametrize(
    ("data", "inputs", "words"),
    [
        (b"\0" * 8, [described("FP32", [2], 4)], "takes 8 bytes of FP32, got 4"),
        (b"\0" * 4, [X], "expected 8 bytes of binary data, got 4"),
        (b"\0" * 9, [X], "9 bytes follow the JSON part, the inputs declare 8"),
        (b"\0" * 8, [described("FP32", [2], None, data=[1, 2])], "8 bytes follow the JSON part, the inputs declare 0"),
        (b"\0" * 8, [described("FP32", [10**9], 8)], "takes 4000000000 bytes"),
        (b"", [described("FP32", [10**9], 4 * 10**9)], "expected 4000000000 bytes of binary data, got 0"),
        (b"\0" * 8, [described("FP32", [2], -8)], "must be a number of bytes"),
        (b"\0" * 8, [described("FP32", [2], 8, data=[1, 2])], "got both"),
        (b"\0" * 8, [described("FP32", [2], None)], "`data` must be a list"),
        (b"\0" * 8, [X | {"parameters": {"binary_data_size": True}}], "must be a number of bytes"),
        (b"\0" * 8, [X | {"parameters": {"binary_data_size": "8"}}], "must be a number of bytes"),
        (b"\0" * 8, [X | {"parameters": []}], "`parameters` must be an object"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(data: bytes, inputs: list[Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        codec("FP32").parse(*sent(data, *inputs))


def test_a_tensor_of_too_many_elements_reaches_no_model() -> None:
    size = 2**24 + 1
    with pytest.raises(RequestError, match="holds more than 16777216 elements"):
        codec("UINT8").parse(*sent(bytes(size), described("UINT8", [size], size)))


def test_binary_data_needs_the_header_that_says_where_it_begins() -> None:
    body, _ = sent(b"", X)
    with pytest.raises(RequestError, match="needs the header inference-header-content-length"):
        codec("FP32").parse(body, {})


@pytest.mark.parametrize("length", [b"", b"-1", b"+3", b"1_0", b"abc", b"1000", b"9" * 5000])
def test_a_header_length_that_is_none_is_refused(length: bytes) -> None:
    with pytest.raises(RequestError, match="must be the bytes of the JSON part, 0 to 2"):
        codec("FP32").parse(b"{}", {HEADER_LENGTH: length})


@pytest.mark.parametrize("asked", [{"binary_data": 1}, {"binary_data": None}, {"binary_data": "true"}])
def test_a_flag_is_true_or_false(asked: dict[str, Any]) -> None:
    body = orjson.dumps(
        {"inputs": [described("FP32", [1], None, data=[1])], "outputs": [{"name": "y", "parameters": asked}]}
    )
    with pytest.raises(RequestError, match="must be true or false"):
        codec("FP32").parse(body, {})


@given(st.binary(max_size=64), st.integers(0, 64), st.sampled_from(["FP32", "BYTES", "BOOL", "INT64"]))
def test_any_bytes_after_any_length_are_read_or_refused(body: bytes, length: int, datatype: str) -> None:
    try:
        request = codec(datatype, -1, 2).parse(body, {HEADER_LENGTH: b"%d" % length})
    except RequestError:
        return
    assert request.inputs["x"].size == 2
