"""Coded bodies: decoded within bounds, and coded only where the client asked and it pays."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import numpy as np
import orjson
import pytest

from gateway.backends.onnx import Signature, TensorSpec
from gateway.errors import BodyTooLarge, RequestError, UnsupportedEncoding
from gateway.serving.oip import HEADER_LENGTH, Codec, InferRequest, coded, worth_coding
from gateway.serving.oip.request import LARGE
from gateway.serving.wire.coding import FREE, MEMBERS, RATIO, WORTH, Decoder, acceptable, decoded, encoded

LIMIT = 16 << 20
TEXT = b'{"a": [1, 2, 3]}' * 10


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        (b"gzip", gzip.compress(TEXT, mtime=0)),
        (b"X-GZIP", gzip.compress(TEXT, mtime=0)),
        (b" deflate ", zlib.compress(TEXT)),
        (b"identity", TEXT),
        (b"", TEXT),
    ],
)
def test_a_known_coding_is_undone(coding: bytes, body: bytes) -> None:
    assert decoded(body, coding, LIMIT) == TEXT


@pytest.mark.parametrize("coding", [b"br", b"zstd", b"gzip, deflate", b"gzip, gzip", b"\xff"])
def test_another_coding_is_refused_with_those_that_are_taken(coding: bytes) -> None:
    with pytest.raises(UnsupportedEncoding, match="is not one of gzip, deflate"):
        decoded(TEXT, coding, LIMIT)


@pytest.mark.parametrize(
    "body", [b"", TEXT, gzip.compress(TEXT, mtime=0)[:-4], gzip.compress(TEXT, mtime=0) + b"x", zlib.compress(TEXT)]
)
def test_a_body_that_is_not_in_its_coding_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError, match="is not valid gzip"):
        decoded(body, b"gzip", LIMIT)


def test_a_bomb_is_refused_at_its_bounds_and_not_after() -> None:
    bomb = gzip.compress(bytes(64 << 20))
    tracemalloc.start()
    with pytest.raises(BodyTooLarge, match=f"exceeds {RATIO * len(bomb)} bytes"):
        decoded(bomb, b"gzip", 1 << 30)
    with pytest.raises(BodyTooLarge, match=f"exceeds {1 << 20} bytes"):
        decoded(bomb, b"gzip", 1 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2.5 * RATIO * len(bomb)


def test_a_small_body_may_grow_at_any_ratio() -> None:
    zeros = bytes(FREE)
    assert decoded(gzip.compress(zeros), b"gzip", LIMIT) == zeros


MEMBER = gzip.compress(TEXT, mtime=0)
GZIP = [(b"content-encoding", b"gzip")]


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_every_member_of_a_copy_is_decoded_wherever_the_network_cuts_it(size: int) -> None:
    decoder, body = Decoder(GZIP), MEMBER * 3
    assert b"".join(decoder.feed(body[at : at + size]) for at in range(0, len(body), size)) == TEXT * 3
    assert decoder.complete
    decoder.feed(MEMBER[:-1])
    assert not decoder.complete


@pytest.mark.parametrize(
    "tail", [b"no", zlib.compress(TEXT), gzip.compress(b"", mtime=0) * MEMBERS, gzip.compress(bytes(FREE), mtime=0)]
)
def test_a_copy_that_goes_on_as_it_must_not_is_broken_and_nothing_is_kept_of_it(tail: bytes) -> None:
    decoder = Decoder(GZIP)
    decoder.feed(MEMBER + tail)
    assert decoder.broken
    assert not decoder.complete
    assert decoder.feed(MEMBER) == b""


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (b"", ""),
        (b"*", ""),
        (b"br", ""),
        (b"gzip", "gzip"),
        (b"deflate", "deflate"),
        (b"GZIP, deflate, br", "gzip"),
        (b"gzip;q=0.5, deflate;q=0.8", "deflate"),
        (b"gzip;q=0, deflate", "deflate"),
        (b"gzip; q=0", ""),
        (b"gzip;q=x", ""),
    ],
)
def test_the_best_coding_that_the_client_names_is_used(header: bytes, name: str) -> None:
    assert acceptable(header) == name


def codec(*shape: int) -> Codec:
    return Codec("m", Signature((TensorSpec("x", "FP32", shape),), (TensorSpec("y", "FP32", shape),)), LIMIT)


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_the_length_of_the_json_part_is_that_of_the_decoded_body(name: str) -> None:
    values = np.arange(WORTH, dtype="<f4")
    text = orjson.dumps(
        {
            "inputs": [
                {
                    "name": "x",
                    "datatype": "FP32",
                    "shape": [WORTH],
                    "parameters": {"binary_data_size": values.nbytes},
                }
            ],
            "parameters": {"binary_data_output": True},
        }
    )
    headers = {
        HEADER_LENGTH: b"%d" % len(text),
        b"content-encoding": name.encode(),
        b"accept-encoding": name.encode(),
    }
    request = codec(-1).parse(encoded(text + values.tobytes(), name), headers)
    assert np.array_equal(request.inputs["x"], values)
    plain = codec(-1).render(request, [values])
    assert worth_coding(request, plain[1]) == name
    fields, body = coded(*plain, name)
    answer = decoded(body, dict(fields)[b"content-encoding"], LIMIT)
    assert answer == plain[1]
    assert answer[int(dict(fields)[HEADER_LENGTH]) :] == values.tobytes()


def test_an_answer_is_coded_only_where_it_was_asked_for_and_is_large() -> None:
    large = bytes(WORTH + 1)
    assert worth_coding(InferRequest({}, accept=b"gzip"), large) == "gzip"
    assert worth_coding(InferRequest({}, accept=b"gzip"), large[1:]) == ""
    assert worth_coding(InferRequest({}), large) == ""


def test_long_json_and_what_may_become_long_is_heavy() -> None:
    heavy = codec(-1).heavy
    large = bytes(LARGE + 1)
    assert heavy(large, {})
    assert heavy(large, {HEADER_LENGTH: b"junk"})
    assert not heavy(large[1:], {})
    assert not heavy(large, {HEADER_LENGTH: b"200"})
    assert heavy(large[: FREE // RATIO + 1], {b"content-encoding": b"gzip"})
    assert not heavy(large[: FREE // RATIO], {b"content-encoding": b"gzip"})


def test_many_strings_are_heavy_also_as_binary_data() -> None:
    strings = Codec("m", Signature((TensorSpec("x", "BYTES", (-1,)),), ()), LIMIT)
    assert strings.heavy(bytes((1 << 16) + 1), {HEADER_LENGTH: b"200"})
    assert not strings.heavy(bytes(1 << 16), {HEADER_LENGTH: b"200"})
