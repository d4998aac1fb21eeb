"""The one number of an answer that is scored: found where it is, None where it is not, never an exception."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.onnx import Signature, TensorSpec
from gateway.plan import CapturePlan
from gateway.serving.answers.capture import LARGEST, Capture

SIGNATURE = Signature((), (TensorSpec("label", "INT64", (-1,)), TensorSpec("probability", "FP32", (-1, 2))))
LABEL = np.array([1, 0], dtype=np.int64)
PROBABILITY = np.array([[0.25, 0.75], [0.5, 0.125]], dtype=np.float32)


def capture(output: str = "", index: int = -1, signature: Signature | None = None) -> Capture:
    return Capture.of(CapturePlan(output=output, index=index), signature)


@pytest.mark.parametrize(
    ("output", "index", "value"),
    [
        ("", -1, 0.0),
        ("", 0, 1.0),
        ("probability", -1, 0.125),
        ("probability", 0, 0.25),
        ("probability", 1, 0.75),
        ("probability", 2, 0.5),
        ("probability", -4, 0.25),
        ("probability", 4, None),
        ("probability", -5, None),
        ("other", 0, None),
    ],
)
def test_arrays_are_counted_row_by_row(output: str, index: int, value: float | None) -> None:
    found = capture(output, index, SIGNATURE).from_arrays([LABEL, PROBABILITY])
    assert found == value
    assert type(found) in (float, type(None))


def test_how_an_array_lies_in_memory_does_not_matter() -> None:
    found = [capture("probability", index, SIGNATURE) for index in range(4)]
    turned = np.asfortranarray(PROBABILITY)
    assert [one.from_arrays([LABEL, turned]) for one in found] == [0.25, 0.75, 0.5, 0.125]


@pytest.mark.parametrize(
    ("values", "value"),
    [
        (np.array([np.nan], dtype=np.float32), None),
        (np.array([-np.inf]), None),
        (np.zeros((0, 1)), None),
        (np.array([True]), 1.0),
        (np.array(3.5), 3.5),
    ],
)
def test_only_finite_numbers_are_predictions(values: Any, value: float | None) -> None:
    signature = Signature((), (TensorSpec("y", "FP64", (-1,)),))
    assert capture(signature=signature).from_arrays([values]) == value


def tensor(data: Any, shape: Any = None, name: Any = "probability") -> dict[str, Any]:
    return {"name": name, "datatype": "FP32", "shape": [len(data)] if shape is None else shape, "data": data}


def read(document: Any, output: str = "", index: int = -1) -> float | None:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return capture(output, index).from_json([], body)


def test_json_is_read_by_name_or_first() -> None:
    answer = {"model_name": "m", "outputs": [tensor([1], name="label"), tensor([0.25, 0.75])]}
    assert read(answer) == 1.0
    assert read(answer, "label") == 1.0
    assert read(answer, "probability") == 0.75
    assert read(answer, "probability", 0) == 0.25
    assert read(answer, "other") is None
    assert read(answer, "probability", 2) is None


def test_beside_a_model_in_the_process_the_first_output_has_its_name_upstream_too() -> None:
    """An upstream of which a client asked for the other output only must not have that taken for the prediction."""
    one = capture(signature=SIGNATURE)
    assert one.from_json([], json.dumps({"outputs": [tensor([0.25]), tensor([1], name="label")]}).encode()) == 1.0
    assert one.from_json([], json.dumps({"outputs": [tensor([0.25])]}).encode()) is None


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        ([1, 2, 3, 0.5], [2, 2]),
        ([[1, 2], [3, 0.5]], [2, 2]),
        ([[[1], [2]], [[3], [0.5]]], [2, 2, 1]),
        ([0.5], []),
    ],
)
def test_data_is_flat_or_nested(data: Any, shape: Any) -> None:
    assert read({"outputs": [tensor(data, shape)]}) == 0.5


def binary(*arrays: tuple[str, str, Any], **changed: Any) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """An answer in which each (name, datatype, array) is binary data."""
    outputs = [
        {"name": name, "datatype": datatype, "shape": list(values.shape)}
        | {"parameters": {"binary_data_size": values.nbytes}}
        | changed
        for name, datatype, values in arrays
    ]
    text = json.dumps({"outputs": outputs}).encode()
    headers = [(b"inference-header-content-length", b"%d" % len(text))]
    return headers, text + b"".join(values.tobytes() for _, _, values in arrays)


def test_binary_tensors_are_read_where_they_lie() -> None:
    answer = binary(("label", "INT64", LABEL), ("probability", "FP32", PROBABILITY))
    assert capture("probability").from_json(*answer) == 0.125
    assert capture("label", 0).from_json(*answer) == 1.0
    assert capture("other").from_json(*answer) is None
    headers, body = answer
    packed = [*headers, (b"content-encoding", b"deflate")]
    assert capture("probability").from_json(packed, zlib.compress(body)) == 0.125


@pytest.mark.parametrize(
    "changed",
    [
        {"shape": [5]},
        {"shape": [10**12]},
        {"datatype": "BF16"},
        {"datatype": ["FP32"]},
        {"datatype": "BYTES"},
        {"parameters": {"binary_data_size": 10**12}},
        {"parameters": {"binary_data_size": -1}},
        {"parameters": {"binary_data_size": True}},
        {"parameters": []},
    ],
)
def test_binary_tensors_that_contradict_themselves_have_no_prediction(changed: dict[str, Any]) -> None:
    assert capture().from_json(*binary(("y", "FP32", PROBABILITY), **changed)) is None


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"\xff",
        b'{"outputs":[{"name":"y","shape":[1],"data":[NaN]}]}',
        b'{"outputs":[{"name":"y","shape":[1],"data":[1e999]}]}',
        b"[" * 100_000,
        [],
        3,
        {},
        {"outputs": None},
        {"outputs": []},
        {"outputs": {}},
        {"outputs": [3]},
        {"outputs": [{}]},
        {"outputs": [tensor([])]},
        {"outputs": [tensor([1], [2])]},
        {"outputs": [tensor([1], [-1])]},
        {"outputs": [tensor([1], [-1, -1])]},
        {"outputs": [tensor([1], [True])]},
        {"outputs": [tensor([1], ["1"])]},
        {"outputs": [tensor([1], {"0": 1})]},
        {"outputs": [{"name": "y", "data": [1]}]},
        {"outputs": [{"name": "y", "shape": [1]}]},
        {"outputs": [tensor([[1, 2], [3]], [2, 2])]},
        {"outputs": [tensor([[1, 2, 3], [4]], [2, 2])]},
        {"outputs": [tensor([[1, 2], 3], [2, 2])]},
        {"outputs": [tensor([[[1]]], [1, 1])]},
        {"outputs": [tensor(["0.5"])]},
        {"outputs": [tensor([None])]},
    ],
)
def test_what_cannot_be_read_is_none(document: Any) -> None:
    assert read(document) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers(-2, 2) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "shape", "data"]), inner),
    max_leaves=12,
)


@given(JSON, st.integers(-3, 3))
def test_no_json_is_too_strange(outputs: Any, index: int) -> None:
    found = read({"outputs": outputs}, index=index)
    assert found is None or type(found) is float


BODY = json.dumps({"outputs": [tensor([0.5])]}).encode()


@pytest.mark.parametrize(
    ("encoding", "body", "value"),
    [
        (b"identity", BODY, 0.5),
        (b"gzip", gzip.compress(BODY, mtime=0), 0.5),
        (b"gzip", gzip.compress(BODY, mtime=0)[:-1], None),
        (b"gzip", BODY, None),
        (b"deflate", zlib.compress(BODY), 0.5),
        (b"br", BODY, None),
    ],
)
def test_an_encoded_answer_is_decoded_or_not_read(encoding: bytes, body: bytes, value: float | None) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-encoding", encoding)]
    assert capture().from_json(headers, body) == value


def test_an_answer_that_would_hold_up_everybody_is_not_read() -> None:
    long = BODY + b" " * (LARGEST - len(BODY))
    assert capture().from_json([], long) == 0.5
    assert capture().from_json([], long + b" ") is None
    zipped = [(b"content-encoding", b"gzip")]
    assert capture().from_json(zipped, gzip.compress(long)) == 0.5
    assert capture().from_json(zipped, gzip.compress(long + b" ")) is None
