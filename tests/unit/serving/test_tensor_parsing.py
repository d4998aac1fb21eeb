"""JSON numbers to tensors and back, for every datatype: exact, or refused in words."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.onnx import Signature, TensorSpec
from gateway.errors import RequestError
from gateway.serving.oip import Codec, InferRequest
from gateway.serving.oip.request import LARGEST, MOST

INTEGERS = {"INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64}
UNSIGNED = {"UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64}


def signature(datatype: str, *shape: int) -> Signature:
    return Signature((TensorSpec("x", datatype, shape or (-1,)),), (TensorSpec("y", datatype, shape or (-1,)),))


def codec(datatype: str, *shape: int) -> Codec:
    return Codec("m", signature(datatype, *shape), 1 << 20)


def parsed(datatype: str, data: Any, *shape: int, declared: list[int] | None = None) -> Any:
    size = declared or [len(data)]
    body = orjson.dumps({"inputs": [{"name": "x", "datatype": datatype, "shape": size, "data": data}]})
    return codec(datatype, *shape).parse(body, {}).inputs["x"]


@pytest.mark.parametrize(("datatype", "dtype"), (INTEGERS | UNSIGNED).items())
def test_the_ends_of_an_integer_type_fit_and_what_lies_beyond_does_not(datatype: str, dtype: Any) -> None:
    info = np.iinfo(dtype)
    values = parsed(datatype, [int(info.min), int(info.max)])
    assert values.dtype == dtype
    assert values.tolist() == [info.min, info.max]
    for beyond in (int(info.min) - 1, int(info.max) + 1):
        if -(2**63) <= beyond < 2**64:  # the others are no integers for the JSON parser
            with pytest.raises(RequestError, match=f"does not fit {datatype}"):
                parsed(datatype, [beyond])


@pytest.mark.parametrize("datatype", [*INTEGERS, *UNSIGNED])
@pytest.mark.parametrize("data", [[1.0], [True], ["1"], [None], [[1, 2]], [2.5], [{}]])
def test_integers_are_not_guessed(datatype: str, data: list[Any]) -> None:
    with pytest.raises(RequestError, match="must hold integers"):
        parsed(datatype, data)


@pytest.mark.parametrize("data", [[1], [0.0], ["true"], [None]])
def test_booleans_are_not_guessed(data: list[Any]) -> None:
    assert parsed("BOOL", [True, False]).tolist() == [True, False]
    with pytest.raises(RequestError, match="must hold booleans"):
        parsed("BOOL", data)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_single_floats_survive_the_way_there_and_back(numbers: list[float]) -> None:
    values = parsed("FP32", numbers)
    assert values.tolist() == numbers
    headers, answer = codec("FP32").render(InferRequest({}), [values])
    assert headers == [(b"content-type", b"application/json")]
    assert np.array_equal(np.array(json.loads(answer)["outputs"][0]["data"], np.float32), values)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_doubles_survive_the_way_there_and_back(numbers: list[float]) -> None:
    values = parsed("FP64", numbers)
    assert values.tolist() == numbers
    _, answer = codec("FP64").render(InferRequest({}), [values])
    assert json.loads(answer)["outputs"][0]["data"] == numbers


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_nested_and_flat_data_are_the_same_tensor(shape: list[int]) -> None:
    flat = list(range(math.prod(shape)))
    nested = np.array(flat).reshape(shape).tolist()
    free = [-1] * len(shape)
    one, other = (parsed("INT64", data, *free, declared=shape) for data in (flat, nested))
    assert one.shape == other.shape == tuple(shape)
    assert np.array_equal(one, other)


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)
inputs = st.fixed_dictionaries({}, optional={"name": junk, "datatype": junk, "shape": junk, "data": junk})
likely = st.fixed_dictionaries({"name": st.just("x"), "datatype": st.just("FP32"), "shape": junk, "data": junk})


@given(
    st.one_of(junk, st.fixed_dictionaries({"inputs": junk | st.lists(inputs | likely, max_size=3), "outputs": junk}))
)
def test_any_document_is_parsed_or_refused(document: Any) -> None:
    try:
        request = codec("FP32", -1, 2).parse(orjson.dumps(document), {})
    except RequestError:
        return
    assert request.inputs["x"].shape[1] == 2


@given(st.binary(max_size=100))
def test_any_bytes_are_parsed_or_refused(body: bytes) -> None:
    with pytest.raises(RequestError):
        codec("FP32", -1, 2).parse(body, {})


def test_outputs_are_those_asked_for() -> None:
    both = Signature((), (TensorSpec("a", "INT64", (1,)), TensorSpec("b", "BOOL", (1,))))
    tensors = [np.array([5]), np.array([True])]
    for asked, names in [(None, ["a", "b"]), ({"b": False}, ["b"]), ({"b": False, "a": False}, ["a", "b"])]:
        _, body = Codec("m", both, 0).render(InferRequest({}, "id", asked), tensors)
        answer = json.loads(body)
        assert [output["name"] for output in answer["outputs"]] == names
        assert (answer["model_name"], answer["model_version"], answer["id"]) == ("m", "1", "id")


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([2, 2], [[1, 2], [3]]),
        ([1, 4], [[1, 2], [3, 4]]),
        ([4, 1], [[1, 2], [3, 4]]),
        ([2, 2], [[1, 2], []]),
        ([2, 2], [[[1], [2]], [[3], [4]]]),
        ([2, 2], [[1, 2], 3, 4]),
    ],
)
def test_rows_that_do_not_follow_the_shape_are_refused(shape: list[int], data: Any) -> None:
    with pytest.raises(RequestError, match=r"differ in length or depth|must hold integers"):
        parsed("INT64", data, -1, -1, declared=shape)


def test_text_is_read_and_written_as_strings() -> None:
    values = parsed("BYTES", ["", "ünï", "a:b"])
    assert values.tolist() == ["", "ünï", "a:b"]
    _, answer = codec("BYTES").render(InferRequest({}), [values])
    assert json.loads(answer)["outputs"][0]["data"] == ["", "ünï", "a:b"]


def test_half_floats_have_no_json_form_in_either_direction() -> None:
    with pytest.raises(RequestError, match="input 'x': FP16 has no JSON form"):
        parsed("FP16", [1.0])
    half_out = Signature((TensorSpec("x", "FP32", (1,)),), (TensorSpec("y", "FP16", (1,)),))
    document = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}
    reader = Codec("m", half_out, 1 << 20)
    for asked in ({}, {"outputs": [{"name": "y"}]}, {"outputs": [{"name": "y", "parameters": {"binary_data": False}}]}):
        with pytest.raises(RequestError, match="output 'y': FP16 has no JSON form: ask for it with binary_data"):
            reader.parse(orjson.dumps(document | asked), {})
    assert reader.parse(orjson.dumps(document | {"parameters": {"binary_data_output": True}}), {}).wanted == {"y": True}


def test_bfloat16_is_refused_as_another_datatype() -> None:
    body = orjson.dumps({"inputs": [{"name": "x", "datatype": "BF16", "shape": [1], "data": [1]}]})
    with pytest.raises(RequestError, match="expected datatype FP32, got 'BF16'"):
        codec("FP32").parse(body, {})


GOOD = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1.5]}


@pytest.mark.parametrize(
    "text",
    [
        b'{"inputs": [], "inputs": [%s]}',
        b'{"inputs": [%s], "\\u0069nputs": [%s]}',
        b'{"inputs": [%s], "parameters": {"a": 1, "a": 2}}',
        b'{"inputs": [%s], "unknown": {"b": [{"c": 1, "c": 1}]}}',
        b'{"inputs": [{"data": [2], %s]}',
        b'{"inputs": [%s], "outputs": [{"name": "y", "name": "y"}]}',
    ],
)
def test_a_key_that_comes_twice_is_refused(text: bytes) -> None:
    good = orjson.dumps(GOOD)
    if b"[2], %s" in text:
        good = good[1:]
    with pytest.raises(RequestError, match="comes twice in one object"):
        codec("FP32").parse(text.replace(b"%s", good), {})


@pytest.mark.parametrize(
    "more",
    [
        {"id": "urn:with:colons"},
        {"parameters": {"a": "x:y", "binary_data_output": False}},
        {"unknown": [{"a": {"a": {"a": 1}}}], "other": {"inputs": []}},
        {"outputs": [{"name": "y", "parameters": {"binary_data": False, "more": ":"}}]},
    ],
)
def test_colons_in_text_and_keys_of_other_objects_are_nothing_twice(more: dict[str, Any]) -> None:
    body = orjson.dumps({"inputs": [GOOD | {"parameters": {"k": 1}}]} | more)
    assert codec("FP32").parse(body, {}).inputs["x"].tolist() == [1.5]


@pytest.mark.parametrize("key", ["shared_memory_region", "classification"])
def test_parameters_that_would_change_the_answer_are_refused(key: str) -> None:
    for more in ({"outputs": [{"name": "y", "parameters": {key: 1}}]}, {"parameters": {key: 1}}):
        with pytest.raises(RequestError, match=rf"{key}.*not supported"):
            codec("FP32").parse(orjson.dumps({"inputs": [GOOD]} | more), {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"[" + b"1," * (LARGEST // 2) + b"1]", f"the limit is {LARGEST}: send binary data"),
        (b"[" + b"[]," * MOST + b"[]]", f"has {MOST + 2} lists and objects"),
        (b"[" + b"{}," * MOST + b"{}]", f"has {MOST + 2} lists and objects"),
    ],
)
def test_json_that_would_stop_all_threads_is_refused(text: bytes, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        codec("FP32").parse(text, {})
