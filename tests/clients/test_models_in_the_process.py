"""Real clients of the protocol against models in the process: everything they can say, and what they make of it."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import __version__
from tests.clients.conftest import results
from tests.integration.process.node import Node

pytestmark = pytest.mark.process

LARGEST, SMALLEST = 5.5, -2.0


def tensor(value: float, rows: int) -> dict[str, Any]:
    return {"shape": [rows, 1], "dtype": "float32", "values": [value]}


def answer(rows: int = 1, **more: Any) -> dict[str, Any]:
    both = {"largest": tensor(LARGEST, rows), "smallest": tensor(SMALLEST, rows)}
    return {"model_name": "onnx", "id": "mine"} | both | more


def side(key: str, dims: str, datatype: str) -> list[dict[str, Any]]:
    return [{"name": name, key: datatype, dims: [-1, 1]} for name in ("largest", "smallest")]


SHAPE = "input 'features': expected shape [-1, 16], got [1, 15]"
TRITON: dict[str, Any] = {
    "live": True,
    "ready": True,
    "model_ready": [True, True],
    "unknown_model_ready": False,
    "server_metadata": {
        "name": "gateway",
        "version": __version__,
        "extensions": ["binary_tensor_data", "model_configuration"],
    },
    "model_metadata": {
        "name": "onnx",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "features", "datatype": "FP32", "shape": [-1, 16]}],
        "outputs": side("datatype", "shape", "FP32"),
    },
    "model_config": {
        "name": "onnx",
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "max_batch_size": 0,
        "input": [{"name": "features", "data_type": "TYPE_FP32", "dims": [-1, 16]}],
        "output": side("data_type", "dims", "TYPE_FP32"),
    },
    "repository_index": [
        {"name": "onnx", "version": "1", "state": "READY", "reason": ""},
        {"name": "ml"},
        {"name": "ks"},
    ],
    "statistics": {
        "refused": "[501] statistics are not answered here: they are at /metrics on the gateway's metrics port"
    },
    "load": {"refused": "[501] models are loaded and unloaded by the gateway's config file alone: edit the file"},
    "infer_json": answer(),
    "infer_binary": answer(),
    "infer_one_output_of_each_kind": answer(),
    "infer_chosen_output": answer(largest=None),
    "infer_version": answer(),
    "infer_other_version": {"refused": "[404] the model 'onnx' has no version '2', only '1'"},
    "infer_gzip_json": answer(4000),
    "infer_gzip": answer(4000),
    "infer_deflate": answer(4000),
    "wrong_shape": {"refused": f"[400] {SHAPE}"},
    "wrong_datatype": {"refused": "[400] input 'features': expected datatype FP32, got 'FP64'"},
    "not_finite": {"refused": "[422] input 'features': element 0 is not finite"},
    "unknown_output": {"refused": "[400] unknown outputs ['middle']; the model has ['largest', 'smallest']"},
    "unknown_model": {"refused": "[404] there is no model 'nobody'"},
}
KSERVE: dict[str, Any] = {
    "live": True,
    "ready": True,
    "model_ready": True,
    "unknown_model_ready": False,
    "infer_json": answer(coding=None),
    "infer_binary": answer(coding=None),
    "infer_one_output_of_each_kind": answer(coding=None),
    "infer_chosen_output": answer(coding=None, largest=None),
    "infer_large": answer(4000, coding="gzip"),
    "wrong_shape": {"refused": f"{SHAPE}, '400 Bad Request' for url 'http://SERVER/v2/models/onnx/infer'"},
    "unknown_model": {
        "refused": "there is no model 'nobody', '404 Not Found' for url 'http://SERVER/v2/models/nobody/infer'"
    },
}
EXPECTED = {"triton_sync": TRITON, "triton_asyncio": TRITON, "kserve_rest": KSERVE}


@pytest.mark.parametrize("client", EXPECTED)
def test_a_client_gets_what_the_protocol_promises(node: Node, client: str) -> None:
    got = results(client, node.addresses["data"], "onnx")
    wrong = {name: (got.get(name), want) for name, want in EXPECTED[client].items() if got.get(name) != want}
    assert not wrong
    assert got.keys() == EXPECTED[client].keys()


def test_compressed_answers_reach_a_client_compressed(node: Node) -> None:
    """tritonclient does not say whether an answer was; here is the same request without it."""
    body = {"inputs": [{"name": "features", "datatype": "FP32", "shape": [4000, 16], "data": [1] * 64000}]}
    url = node.url("data", "/v2/models/onnx/infer")
    sizes = {}
    for coding in ("gzip", "deflate", "identity"):
        reply = node.client.post(url, json=body, headers={"accept-encoding": coding}).raise_for_status()
        assert reply.headers.get("content-encoding", "identity") == coding
        sizes[coding] = int(reply.headers["content-length"])
    assert max(sizes["gzip"], sizes["deflate"]) < sizes["identity"] / 10
