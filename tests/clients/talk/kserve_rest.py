"""kserve's InferenceRESTClient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

from tests.clients.talk.script import FEATURES, ROW, ROWS, Scenario, main, play, summary


class Client:
    """The client with its base URL, which it wants at every call."""

    def __init__(self, address: str) -> None:
        self.url = f"http://{address}"
        self.rest = InferenceRESTClient(RESTConfig(protocol="v2", timeout=10))


def features(values: Any = ROW, datatype: str = "FP32", binary: bool = False) -> list[InferInput]:
    tensor = InferInput("features", list(values.shape), datatype)
    tensor.set_data_from_numpy(values, binary_data=binary)
    return [tensor]


async def infer(client: Client, model: str, inputs: list[InferInput], **more: Any) -> dict[str, Any]:
    request = InferRequest(model, inputs, request_id="mine", **more)
    headers: dict[str, str] = {}
    answer = await client.rest.infer(client.url, request, model, response_headers=headers)
    found = {output.name: summary(output.as_numpy()) for output in answer.outputs}
    return {
        "model_name": answer.model_name,
        "id": answer.id,
        "largest": found.get("largest"),
        "smallest": found.get("smallest"),
        "coding": headers.get("content-encoding"),
    }


async def live(client: Client, model: str) -> Any:
    return await client.rest.is_server_live(client.url)


async def ready(client: Client, model: str) -> Any:
    return await client.rest.is_server_ready(client.url)


async def model_ready(client: Client, model: str) -> Any:
    return await client.rest.is_model_ready(client.url, model)


async def unknown_model_ready(client: Client, model: str) -> Any:
    return await client.rest.is_model_ready(client.url, "nobody")


async def infer_json(client: Client, model: str) -> Any:
    return await infer(client, model, features())


async def infer_binary(client: Client, model: str) -> Any:
    return await infer(client, model, features(binary=True), parameters={"binary_data_output": True})


async def infer_one_output_of_each_kind(client: Client, model: str) -> Any:
    asked = [
        RequestedOutput("largest", parameters={"binary_data": True}),
        RequestedOutput("smallest", parameters={"binary_data": False}),
    ]
    return await infer(client, model, features(binary=True), request_outputs=asked)


async def infer_chosen_output(client: Client, model: str) -> Any:
    return await infer(client, model, features(), request_outputs=[RequestedOutput("smallest")])


async def infer_large(client: Client, model: str) -> Any:
    """The client's transport asks for gzip by itself."""
    return await infer(client, model, features(ROWS))


async def wrong_shape(client: Client, model: str) -> Any:
    return await infer(client, model, features(ROW[:, : FEATURES - 1]))


async def unknown_model(client: Client, model: str) -> Any:
    return await infer(client, "nobody", features())


SCENARIOS = (
    live,
    ready,
    model_ready,
    unknown_model_ready,
    infer_json,
    infer_binary,
    infer_one_output_of_each_kind,
    infer_chosen_output,
    infer_large,
    wrong_shape,
    unknown_model,
)


async def run(address: str, model: str, scenarios: Mapping[str, Scenario]) -> None:
    client = Client(address)
    try:
        await play(client, model, scenarios, httpx.HTTPStatusError)
    finally:
        await client.rest.close()


if __name__ == "__main__":
    main(run, SCENARIOS)
