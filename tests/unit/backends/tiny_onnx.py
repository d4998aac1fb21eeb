"""ONNX files small enough to write by hand, so that tests need no `onnx` package: the protobuf wire format,
as far as a graph of a few nodes needs it. All take and give what the flight-delay models do.
"""

from __future__ import annotations

import struct
from pathlib import Path

FLOAT, INT64, BOOL = 1, 7, 9  # TensorProto.DataType
FEATURES = 16


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _int(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _bytes(number: int, value: bytes | str) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(raw)) + raw


def _value(name: str, kind: int, shape: list[int | str]) -> bytes:
    dims = [_int(1, size) if isinstance(size, int) else _bytes(2, size) for size in shape]
    tensor = _int(1, kind) + _bytes(2, b"".join(_bytes(1, dim) for dim in dims))
    return _bytes(1, name) + _bytes(2, _bytes(1, tensor))


def _node(operator: str, inputs: list[str], outputs: list[str], *attributes: bytes) -> bytes:
    names = [_bytes(1, name) for name in inputs] + [_bytes(2, name) for name in outputs]
    return b"".join([*names, _bytes(4, operator), *(_bytes(5, attribute) for attribute in attributes)])


def _attribute_int(name: str, value: int) -> bytes:
    return _bytes(1, name) + _int(3, value) + _int(20, 2)


def _attribute_ints(name: str, value: int) -> bytes:
    return _bytes(1, name) + _int(8, value) + _int(20, 7)


def _attribute_graph(name: str, graph: bytes) -> bytes:
    return _bytes(1, name) + _bytes(6, graph) + _int(20, 5)


def _scalar(name: str, kind: int, raw: bytes) -> bytes:
    return _int(2, kind) + _bytes(8, name) + _bytes(9, raw)


def _graph(
    nodes: list[bytes], inputs: list[bytes], outputs: list[bytes], constants: list[bytes] | None = None
) -> bytes:
    fields = [(1, nodes), (5, constants or []), (11, inputs), (12, outputs)]
    return _bytes(2, "g") + b"".join(_bytes(number, item) for number, items in fields for item in items)


def _model(graph: bytes, opset: int = 17) -> bytes:
    return _int(1, 8) + _bytes(8, _bytes(1, "") + _int(2, opset)) + _bytes(7, graph)


_IN = _value("features", FLOAT, ["batch", FEATURES])
_OUT = _value("probability", FLOAT, ["batch", 1])
_LARGEST = _node("ReduceMax", ["features"], ["largest"], _attribute_ints("axes", 1), _attribute_int("keepdims", 1))


def largest(path: Path, features: int = FEATURES, opset: int = 17) -> Path:
    """Answers the largest feature."""
    out = _node("Identity", ["largest"], ["probability"])
    given = _value("features", FLOAT, ["batch", features])
    path.write_bytes(_model(_graph([_LARGEST, out], [given], [_OUT]), opset))
    return path


def extremes(path: Path, opset: int = 17) -> Path:
    """Answers two outputs, the largest and the smallest feature."""
    least = _node("ReduceMin", ["features"], ["smallest"], _attribute_ints("axes", 1), _attribute_int("keepdims", 1))
    outputs = [_value(name, FLOAT, ["batch", 1]) for name in ("largest", "smallest")]
    path.write_bytes(_model(_graph([_LARGEST, least], [_IN], outputs), opset))
    return path


def logarithm(path: Path) -> Path:
    """Answers the logarithm of the largest feature: NaN or -inf unless that is positive."""
    path.write_bytes(_model(_graph([_LARGEST, _node("Log", ["largest"], ["probability"])], [_IN], [_OUT])))
    return path


def hanging(path: Path) -> Path:
    """Runs for (practically) ever if any feature is positive; otherwise answers the largest at once."""
    body = _graph(
        [_node("Identity", ["going"], ["on"]), _node("Identity", ["before"], ["after"])],
        [_value("round", INT64, []), _value("going", BOOL, []), _value("before", FLOAT, ["batch", 1])],
        [_value("on", BOOL, []), _value("after", FLOAT, ["batch", 1])],
    )
    nodes = [
        _LARGEST,
        _node("ReduceMax", ["features"], ["most"], _attribute_int("keepdims", 0)),
        _node("Mul", ["most", "many"], ["times"]),
        _node("Cast", ["times"], ["rounds"], _attribute_int("to", INT64)),
        _node("Loop", ["rounds", "true", "largest"], ["probability"], _attribute_graph("body", body)),
    ]
    constants = [_scalar("many", FLOAT, struct.pack("<f", 1e12)), _scalar("true", BOOL, b"\x01")]
    path.write_bytes(_model(_graph(nodes, [_IN], [_OUT], constants)))
    return path
