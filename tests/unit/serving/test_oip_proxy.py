"""The protocol's bytes on their way through: the model's name changes, and not a byte beside it."""

from __future__ import annotations

import gzip
import json

import pytest

from gateway.errors import BadOutput
from gateway.serving.oip.proxy import mask, target

NAMED = b'{ "id":"model_name", "model_name" : "internal-v7" , "outputs":[{"model_name":"x","v":1.50}]}'
MASKED = NAMED.replace(b'"internal-v7"', b'"public"')


@pytest.mark.parametrize(
    ("path", "model", "expected"),
    [
        (b"/v2/models/flight/infer", "flight-a", b"/v2/models/flight-a/infer"),
        (b"/v2/models/flight", "b", b"/v2/models/b"),
        (b"/v2/models/fl%69ght/versions/1%2E0/infer", "x/y z%", b"/v2/models/x%2Fy%20z%25/versions/1%2E0/infer"),
        (b"/v2/models/models/ready", "models", b"/v2/models/models/ready"),
    ],
)
def test_the_path_names_the_model_as_the_upstream_does(path: bytes, model: str, expected: bytes) -> None:
    assert target(path, model) == expected


def test_the_name_is_replaced_in_place() -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(NAMED))]
    changed, body = mask(headers, NAMED, "public")
    assert body == MASKED
    assert changed == [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(MASKED))]


def test_binary_data_stays_and_the_length_before_it_follows() -> None:
    data = b'\x00"model_name":"no"\xff'
    headers = [(b"inference-header-content-length", b"%d" % len(NAMED))]
    changed, body = mask(headers, NAMED + data, "public")
    assert body == MASKED + data
    assert changed == [(b"inference-header-content-length", b"%d" % len(MASKED))]


@pytest.mark.parametrize("coding", [b"gzip", b"GZIP", b" x-gzip"])
def test_a_coded_answer_is_coded_again(coding: bytes) -> None:
    headers, body = mask([(b"content-encoding", coding)], gzip.compress(NAMED), "public")
    assert headers == [(b"content-encoding", coding)]
    assert gzip.decompress(body) == MASKED


@pytest.mark.parametrize("coding", [b"", b"Identity"])
def test_an_answer_that_is_not_coded_stays_so_whatever_it_calls_that(coding: bytes) -> None:
    assert mask([(b"content-encoding", coding)], NAMED, "public")[1] == MASKED


@pytest.mark.parametrize(
    "body", [b"", b"no json", b"[1]", b'{"outputs":[{"model_name":"x"}]}', gzip.compress(b"{}", mtime=0)]
)
def test_an_answer_without_the_name_passes_unchanged(body: bytes) -> None:
    packed = [(b"content-encoding", b"gzip")] if body.startswith(b"\x1f") else []
    assert mask(packed, body, "public") == (packed, body)


def test_every_one_of_repeated_names_is_replaced() -> None:
    _, body = mask([], b'{"model_name":"a","model_name":"bb"}', "public")
    assert body == b'{"model_name":"public","model_name":"public"}'


def test_a_name_is_written_as_json() -> None:
    _, body = mask([], NAMED, 'quote"d')
    assert json.loads(body)["model_name"] == 'quote"d'


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ([(b"content-encoding", b"br")], "cannot be masked: the content-encoding 'br'"),
        ([(b"content-encoding", b"gzip")], "cannot be masked: the body is not valid gzip"),
        ([(b"inference-header-content-length", b"1000")], "shorter than its inference-header-content-length"),
    ],
)
def test_an_answer_that_cannot_be_read_is_the_upstreams_failure(headers: list[tuple[bytes, bytes]], words: str) -> None:
    with pytest.raises(BadOutput, match=words):
        mask(headers, NAMED, "public")
