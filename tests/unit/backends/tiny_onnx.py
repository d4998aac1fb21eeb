"""ONNX files small enough to write by hand, so that tests need no `onnx` package: the protobuf wire format,
as far as a graph of a few nodes needs it. All take and give what the flight-delay models do.
"""

from __future__ import annotations

import struct
from pathlib import Path

FLOAT, INT64, STRING, BOOL = 1, 7, 8, 9  # TensorProto.DataType
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


def with_outside_weights(path: Path, location: str) -> Path:
    """Answers the largest feature times a number that is stored in a file of its own: four bytes at `location`."""
    entry = _bytes(1, "location") + _bytes(2, location)
    weight = _int(2, FLOAT) + _bytes(8, "weight") + _bytes(13, entry) + _int(14, 1)
    out = _node("Mul", ["largest", "weight"], ["probability"])
    path.write_bytes(_model(_graph([_LARGEST, out], [_IN], [_OUT], [weight])))
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


def neighbourly(path: Path) -> Path:
    """Answers the largest feature of each row less the mean of all rows' largest: no row is answered alone."""
    nodes = [
        _LARGEST,
        _node("ReduceMean", ["largest"], ["mean"], _attribute_ints("axes", 0), _attribute_int("keepdims", 1)),
        _node("Sub", ["largest", "mean"], ["probability"]),
    ]
    path.write_bytes(_model(_graph(nodes, [_IN], [_OUT])))
    return path


def one_row(path: Path) -> Path:
    """As `largest`, but takes and gives exactly one row."""
    given, answer = _value("features", FLOAT, [1, FEATURES]), _value("probability", FLOAT, [1, 1])
    out = _node("Identity", ["largest"], ["probability"])
    path.write_bytes(_model(_graph([_LARGEST, out], [given], [answer])))
    return path


def echo(path: Path) -> Path:
    """Answers the text that it is given."""
    given, answer = _value("text", STRING, ["batch", 2]), _value("echo", STRING, ["batch", 2])
    path.write_bytes(_model(_graph([_node("Identity", ["text"], ["echo"])], [given], [answer])))
    return path


def heavy(path: Path, size: int) -> Path:
    """Answers the largest product of the features with weights of `size` bytes, all zero."""
    columns = size // 4 // FEATURES
    weights = _int(1, FEATURES) + _int(1, columns) + _scalar("weights", FLOAT, bytes(columns * FEATURES * 4))
    nodes = [
        _node("MatMul", ["features", "weights"], ["products"]),
        _node("ReduceMax", ["products"], ["probability"], _attribute_ints("axes", 1), _attribute_int("keepdims", 1)),
    ]
    path.write_bytes(_model(_graph(nodes, [_IN], [_OUT], [weights])))
    return path


def hanging(path: Path) -> Path:
    """Runs for (practically) ever if any feature is positive; otherwise answers the largest at once."""
    path.write_bytes(_model(_graph(_endless("probability"), [_IN], [_OUT], _endless_constants(over=0.0))))
    return path


def moody(path: Path) -> Path:
    """Answers log(x + 2) for the largest feature x of a row, which is not finite for x <= -2; raises for x <= -10
    and hangs for x > 1000, which no row is that is made up to try the model.
    """
    nodes = [
        *_endless("late"),
        _node("Add", ["late", "two"], ["more"]),
        _node("Log", ["more"], ["logarithm"]),
        _node("Mul", ["late", "fifth"], ["fifths"]),
        _node("Cast", ["fifths"], ["place"], _attribute_int("to", INT64)),
        _node("Clip", ["place", "", "zero"], ["place below"]),
        _node("Gather", ["nothing", "place below"], ["none"]),  # raises below -1: there is one element
        _node("Add", ["logarithm", "none"], ["probability"]),
    ]
    constants = [
        *_endless_constants(over=1000.0),
        _number("two", 2.0),
        _number("fifth", 0.2),
        _scalar("zero", INT64, bytes(8)),
        _int(1, 1) + _number("nothing", 0.0),
    ]
    path.write_bytes(_model(_graph(nodes, [_IN], [_OUT], constants)))
    return path


def _endless(output: str) -> list[bytes]:
    """Nodes that give the largest feature of each row, after 10^12 rounds for every unit by which any is `over`."""
    body = _graph(
        [_node("Identity", ["going"], ["on"]), _node("Identity", ["before"], ["after"])],
        [_value("round", INT64, []), _value("going", BOOL, []), _value("before", FLOAT, ["batch", 1])],
        [_value("on", BOOL, []), _value("after", FLOAT, ["batch", 1])],
    )
    return [
        _LARGEST,
        _node("ReduceMax", ["features"], ["most"], _attribute_int("keepdims", 0)),
        _node("Sub", ["most", "over"], ["excess"]),
        _node("Mul", ["excess", "many"], ["times"]),
        _node("Cast", ["times"], ["rounds"], _attribute_int("to", INT64)),
        _node("Loop", ["rounds", "true", "largest"], [output], _attribute_graph("body", body)),
    ]


def _endless_constants(over: float) -> list[bytes]:
    return [_number("over", over), _number("many", 1e12), _scalar("true", BOOL, b"\x01")]


def _number(name: str, value: float) -> bytes:
    return _scalar(name, FLOAT, struct.pack("<f", value))
