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
from gateway.serving.oip import InferRequest, parse, render

INTEGERS = {"INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64}
UNSIGNED = {"UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64}


def signature(datatype: str, *shape: int) -> Signature:
    return Signature((TensorSpec("x", datatype, shape or (-1,)),), (TensorSpec("y", datatype, shape or (-1,)),))


def parsed(datatype: str, data: Any, *shape: int, declared: list[int] | None = None) -> Any:
    size = declared or [len(data)]
    body = orjson.dumps({"inputs": [{"name": "x", "datatype": datatype, "shape": size, "data": data}]})
    return parse(body, signature(datatype, *shape)).inputs["x"]


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
    answer = render("m", InferRequest({}, None, None), signature("FP32"), [values])
    assert np.array_equal(np.array(json.loads(answer)["outputs"][0]["data"], np.float32), values)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_doubles_survive_the_way_there_and_back(numbers: list[float]) -> None:
    values = parsed("FP64", numbers)
    assert values.tolist() == numbers
    answer = render("m", InferRequest({}, None, None), signature("FP64"), [values])
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
        request = parse(orjson.dumps(document), signature("FP32", -1, 2))
    except RequestError:
        return
    assert request.inputs["x"].shape[1] == 2


@given(st.binary(max_size=100))
def test_any_bytes_are_parsed_or_refused(body: bytes) -> None:
    with pytest.raises(RequestError):
        parse(body, signature("FP32", -1, 2))


def test_outputs_are_those_asked_for() -> None:
    both = Signature((), (TensorSpec("a", "INT64", (1,)), TensorSpec("b", "BOOL", (1,))))
    tensors = [np.array([5]), np.array([True])]
    for asked, names in [(None, ["a", "b"]), (("b",), ["b"]), (("b", "a"), ["a", "b"])]:
        answer = json.loads(render("m", InferRequest({}, "id", asked), both, tensors))
        assert [output["name"] for output in answer["outputs"]] == names
        assert answer["id"] == "id"
