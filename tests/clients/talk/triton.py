"""tritonclient over HTTP: one set of scenarios for its sync and its asyncio client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tritonclient.http import InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from tests.clients.talk.script import FEATURES, ROW, ROWS, Scenario, play, settled, summary


def features(values: Any = ROW, datatype: str = "FP32", binary: bool = True) -> list[InferInput]:
    tensor = InferInput("features", list(values.shape), datatype)
    return [tensor.set_data_from_numpy(values, binary_data=binary)]


def outputs(result: Any) -> dict[str, Any]:
    answer = result.get_response()
    return {
        "model_name": answer["model_name"],
        "id": answer.get("id"),
        "largest": summary(result.as_numpy("largest")),
        "smallest": summary(result.as_numpy("smallest")),
    }


async def infer(client: Any, model: str, inputs: list[InferInput], **more: Any) -> dict[str, Any]:
    return outputs(await settled(client.infer(model, inputs, request_id="mine", **more)))


async def live(client: Any, model: str) -> Any:
    return await settled(client.is_server_live())


async def ready(client: Any, model: str) -> Any:
    return await settled(client.is_server_ready())


async def model_ready(client: Any, model: str) -> Any:
    return [await settled(client.is_model_ready(model, version)) for version in ("", "1")]


async def unknown_model_ready(client: Any, model: str) -> Any:
    return await settled(client.is_model_ready("nobody"))


async def server_metadata(client: Any, model: str) -> Any:
    return await settled(client.get_server_metadata())


async def model_metadata(client: Any, model: str) -> Any:
    return await settled(client.get_model_metadata(model))


async def model_config(client: Any, model: str) -> Any:
    return await settled(client.get_model_config(model))


async def repository_index(client: Any, model: str) -> Any:
    return await settled(client.get_model_repository_index())


async def statistics(client: Any, model: str) -> Any:
    return await settled(client.get_inference_statistics(model))


async def load(client: Any, model: str) -> Any:
    return await settled(client.load_model(model))


async def infer_json(client: Any, model: str) -> Any:
    asked = [InferRequestedOutput(name, binary_data=False) for name in ("largest", "smallest")]
    return await infer(client, model, features(binary=False), outputs=asked)


async def infer_binary(client: Any, model: str) -> Any:
    return await infer(client, model, features())


async def infer_one_output_of_each_kind(client: Any, model: str) -> Any:
    asked = [InferRequestedOutput("largest", binary_data=True), InferRequestedOutput("smallest", binary_data=False)]
    return await infer(client, model, features(), outputs=asked)


async def infer_chosen_output(client: Any, model: str) -> Any:
    return await infer(client, model, features(binary=False), outputs=[InferRequestedOutput("smallest", False)])


async def infer_version(client: Any, model: str) -> Any:
    return await infer(client, model, features(), model_version="1")


async def infer_other_version(client: Any, model: str) -> Any:
    return await infer(client, model, features(), model_version="2")


async def infer_gzip_json(client: Any, model: str) -> Any:
    packed = {"request_compression_algorithm": "gzip", "response_compression_algorithm": "gzip"}
    asked = [InferRequestedOutput(name, binary_data=False) for name in ("largest", "smallest")]
    return await infer(client, model, features(ROWS, binary=False), outputs=asked, **packed)


async def infer_gzip(client: Any, model: str) -> Any:
    packed = {"request_compression_algorithm": "gzip", "response_compression_algorithm": "gzip"}
    return await infer(client, model, features(ROWS), **packed)


async def infer_deflate(client: Any, model: str) -> Any:
    packed = {"request_compression_algorithm": "deflate", "response_compression_algorithm": "deflate"}
    return await infer(client, model, features(ROWS), **packed)


async def wrong_shape(client: Any, model: str) -> Any:
    return await infer(client, model, features(ROW[:, : FEATURES - 1], binary=False))


async def wrong_datatype(client: Any, model: str) -> Any:
    return await infer(client, model, features(ROW.astype(np.float64), "FP64"))


async def not_finite(client: Any, model: str) -> Any:
    return await infer(client, model, features(ROW * np.float32("nan")))


async def unknown_output(client: Any, model: str) -> Any:
    return await infer(client, model, features(), outputs=[InferRequestedOutput("middle")])


async def unknown_model(client: Any, model: str) -> Any:
    return await infer(client, "nobody", features())


SCENARIOS = (
    live,
    ready,
    model_ready,
    unknown_model_ready,
    server_metadata,
    model_metadata,
    model_config,
    repository_index,
    statistics,
    load,
    infer_json,
    infer_binary,
    infer_one_output_of_each_kind,
    infer_chosen_output,
    infer_version,
    infer_other_version,
    infer_gzip_json,
    infer_gzip,
    infer_deflate,
    wrong_shape,
    wrong_datatype,
    not_finite,
    unknown_output,
    unknown_model,
)


async def talk(client: Any, model: str, scenarios: Mapping[str, Scenario]) -> None:
    try:
        await play(client, model, scenarios, InferenceServerException)
    finally:
        await settled(client.close())
