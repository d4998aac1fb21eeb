"""A request of the protocol, checked against the signature that an endpoint's models share.

Everything wrong with a request is found here, before a variant is drawn, so that a client's mistake never counts
against a model. Parsing is strict: NaN and infinity are no JSON, dtypes are not guessed, no key comes twice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
import orjson
from numpy.typing import NDArray

from gateway.backends.onnx import Signature, Tensors
from gateway.errors import BodyTooLarge, RequestError
from gateway.serving.oip import pieces
from gateway.serving.oip.datatypes import DATATYPES
from gateway.serving.oip.tensors import InputReader
from gateway.serving.wire import coding

HEADER_LENGTH = b"inference-header-content-length"
LARGE = 1 << 19  # bytes of JSON whose parsing would hold up every other request: of short numbers for 15 ms
# On another thread each call of the parser stops all threads as well. Long lists are parsed in `pieces`; these bounds
# keep a call for all else below 50 ms. Larger tensors are better off as binary data, which is not parsed at all.
LARGEST = 4 << 20  # bytes of JSON
MOST = 1 << 16  # lists and objects
_NOT_SERVED = ("shared_memory_region", "classification")  # to ignore these would be to answer something else


class InferRequest(msgspec.Struct, frozen=True, gc=False):
    """A request that fits the signature of the endpoint's models."""

    inputs: Tensors
    id: str | None = None
    wanted: Mapping[str, bool] | None = None  # outputs asked for, and whether as binary data; None: all, as JSON
    accept: bytes = b""  # the Accept-Encoding header


class RequestReader:
    """Reads the requests of one endpoint."""

    def __init__(self, signature: Signature, max_body: int) -> None:
        """`max_body` is the largest body in bytes, also once decoded."""
        self._inputs = {spec.name: InputReader(spec) for spec in signature.inputs}
        self._outputs = {spec.name: spec.datatype for spec in signature.outputs}
        self._all_binary = dict.fromkeys(self._outputs, True)
        self._some_binary_only = any(not DATATYPES[name].leaves for name in self._outputs.values())
        self._strings = any(spec.datatype == "BYTES" for spec in signature.inputs)
        self._max_body = max_body

    def heavy(self, body: bytes, headers: Mapping[bytes, bytes]) -> bool:
        """Whether reading the body takes so long that it must not happen on the event loop."""
        if coding.grows(headers, len(body)) or (self._strings and len(body) > MOST):
            return True
        return len(body) > LARGE and _json_length(headers, len(body)) > LARGE

    def read(self, body: bytes, headers: Mapping[bytes, bytes]) -> InferRequest:
        """Raises RequestError naming the tensor and what was expected. Headers are named in lower case."""
        if b"content-encoding" in headers:
            body = coding.decoded(body, headers[b"content-encoding"], self._max_body)
        accept = headers.get(b"accept-encoding", b"")
        if HEADER_LENGTH not in headers:
            return self._document(body, None, accept)
        length = _length(headers[HEADER_LENGTH], len(body))
        if length == 0:
            return self._raw(body, accept)
        return self._document(body[:length], memoryview(body)[length:], accept)

    def _document(self, text: bytes, data: memoryview | None, accept: bytes) -> InferRequest:
        document = _parsed(text)
        given = document.get("inputs")
        if type(given) is not list:
            raise RequestError("expected an object with a list `inputs`")
        identifier = document.get("id")
        if identifier is not None and type(identifier) is not str:
            raise RequestError("`id` must be a string")
        tensors, keys = self._tensors(given, data, b"true" in text or b"false" in text)
        wanted = None
        if "parameters" in document or "outputs" in document:
            parameters = _parameters(document)
            wanted, more = self._wanted(document.get("outputs"), _flag(parameters, "binary_data_output"))
            keys += more + len(parameters)
        if self._some_binary_only:
            self._speakable(wanted)
        # Each key has its colon, so more colons than keys are a key twice, or text with colons: then look closely.
        if text.count(b":") != keys + len(document):
            _no_key_twice(text)
        return InferRequest(tensors, identifier, wanted, accept)

    def _tensors(
        self, given: list[Any], data: memoryview | None, booleans: bool
    ) -> tuple[dict[str, NDArray[Any]], int]:
        """The tensors by name, and how many keys described them. Binary data stands in the order of the inputs."""
        tensors: dict[str, NDArray[Any]] = {}
        keys = at = 0
        for item in given:
            name = _name(item)
            reader = self._inputs.get(name)
            if reader is None or name in tensors:
                raise self._wrong_names(given)
            keys += len(item)
            size = None
            if "parameters" in item:
                parameters = _parameters(item)
                keys += len(parameters)
                size = _binary_size(name, item, parameters)
            if size is None:
                tensors[name] = reader.from_json(item, booleans)
            else:
                tensors[name] = reader.from_bytes(item, _slice(name, data, at, size))
                at += size
        if len(tensors) != len(self._inputs):
            raise self._wrong_names(given)
        if data is not None and at != len(data):
            raise RequestError(f"{len(data)} bytes follow the JSON part, the inputs declare {at} of binary data")
        return tensors, keys

    def _raw(self, body: bytes, accept: bytes) -> InferRequest:
        """A header length of 0: the body is the only input's only row, and all outputs are binary."""
        if len(self._inputs) != 1:
            raise RequestError(f"a raw body needs a model with one input, this one has {sorted(self._inputs)}")
        ((name, reader),) = self._inputs.items()
        return InferRequest({name: reader.from_raw(memoryview(body))}, None, self._all_binary, accept)

    def _wanted(self, asked: Any, binary: bool) -> tuple[Mapping[str, bool] | None, int]:
        """The outputs asked for, and how many keys asked for them."""
        if asked is None or asked == []:
            return self._all_binary if binary else None, 0
        if type(asked) is not list:
            raise RequestError("`outputs` must be a list")
        wanted: dict[str, bool] = {}
        keys = 0
        for item in asked:
            parameters = _parameters(item) if type(item) is dict else {}
            wanted[_name(item)] = _flag(parameters, "binary_data", binary)
            keys += len(item) + len(parameters)
        if unknown := sorted(wanted.keys() - self._outputs.keys()):
            raise RequestError(f"unknown outputs {_listed(unknown)}; the model has {sorted(self._outputs)}")
        return wanted, keys

    def _speakable(self, wanted: Mapping[str, bool] | None) -> None:
        for name, datatype in self._outputs.items():
            if not DATATYPES[datatype].leaves and (wanted is None or wanted.get(name) is False):
                raise RequestError(f"output {name!r}: {datatype} has no JSON form: ask for it with binary_data: true")

    def _wrong_names(self, given: list[Any]) -> RequestError:
        names = sorted(_name(item) for item in given)
        return RequestError(f"expected the inputs {sorted(self._inputs)}, each once; got {_listed(names)}")


def _json_length(headers: Mapping[bytes, bytes], size: int) -> int:
    declared = headers.get(HEADER_LENGTH, b"")
    return int(declared) if declared.isdigit() and len(declared) <= _DIGITS else size


_DIGITS = 18


def _length(declared: bytes, size: int) -> int:
    if not declared.isdigit() or len(declared) > _DIGITS or int(declared) > size:
        shown = declared[:40].decode("latin-1")
        raise RequestError(
            f"inference-header-content-length must be the bytes of the JSON part, 0 to {size}; got {shown!r}"
        )
    return int(declared)


def _parsed(text: bytes) -> dict[str, Any]:
    if len(text) > MOST:
        _bounded(text)
    try:
        document = orjson.loads(text) if len(text) <= LARGE else pieces.loads(text)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not valid JSON: {error}") from error
    if type(document) is not dict:
        raise RequestError("expected an object with a list `inputs`")
    return document


def _bounded(text: bytes) -> None:
    if len(text) > LARGEST:
        raise BodyTooLarge(f"the JSON part has {len(text)} bytes, the limit is {LARGEST}: send binary data")
    if (count := text.count(b"[") + text.count(b"{")) > MOST:
        raise RequestError(
            f"the JSON part has {count} lists and objects, the limit is {MOST}: send flat or binary data"
        )


def _listed(names: list[str]) -> str:
    """As part of a message, which is not to grow with what the client sent."""
    rest = len(names) - 10
    listed = str([name if len(name) <= 100 else name[:97] + "..." for name in names[:10]])
    return f"{listed} and {rest} more" if rest > 0 else listed


def _name(item: Any) -> str:
    if type(item) is not dict or type(item.get("name")) is not str:
        raise RequestError("every input and output must be an object with a string `name`")
    name: str = item["name"]
    return name


def _parameters(item: dict[str, Any]) -> dict[str, Any]:
    """Those that we do not know are let pass: clients send what other servers understand."""
    parameters = item.get("parameters")
    if parameters is None:
        return {}
    if type(parameters) is not dict:
        raise RequestError("`parameters` must be an object")
    for key in _NOT_SERVED:
        if key in parameters:
            raise RequestError(f"the parameter {key!r} is not supported here")
    return parameters


def _flag(parameters: dict[str, Any], key: str, default: bool = False) -> bool:
    value = parameters.get(key, default)
    if type(value) is not bool:
        raise RequestError(f"the parameter {key!r} must be true or false")
    return value


def _binary_size(name: str, item: dict[str, Any], parameters: dict[str, Any]) -> int | None:
    size = parameters.get("binary_data_size")
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise RequestError(f"input {name!r}: binary_data_size must be a number of bytes")
    if "data" in item:
        raise RequestError(f"input {name!r}: expected `data` or binary_data_size, got both")
    return size


def _slice(name: str, data: memoryview | None, at: int, size: int) -> memoryview:
    if data is None:
        raise RequestError(f"input {name!r}: binary data needs the header inference-header-content-length")
    if at + size > len(data):
        raise RequestError(f"input {name!r}: expected {size} bytes of binary data, got {len(data) - at}")
    return data[at : at + size]


def _no_key_twice(text: bytes) -> None:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            ((twice, _),) = Counter(key for key, _ in items).most_common(1)
            raise RequestError(f"the key {twice[:100]!r} comes twice in one object: which one counts?")
        return found

    try:
        try:
            json.loads(pieces.without_lists(text), object_pairs_hook=pairs)
        except json.JSONDecodeError:
            json.loads(text, object_pairs_hook=pairs)
    except RecursionError as error:
        raise RequestError("the body is nested too deeply") from error
