"""The largest and the smallest feature, as a model of KServe's own server. Called with the model's name and a port."""

from __future__ import annotations

import sys
from typing import Any

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.errors import InvalidInput


class Extremes(Model):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ready = True

    async def predict(self, payload: InferRequest, *_: Any, **__: Any) -> InferResponse:
        features = payload.inputs[0].as_numpy()
        if features.shape[1] != 16:
            raise InvalidInput(f"expected 16 features, got {features.shape[1]}")
        found = {"largest": features.max(1, keepdims=True), "smallest": features.min(1, keepdims=True)}
        asked = [output.name for output in payload.request_outputs or []] or list(found)
        outputs = []
        for name in asked:
            output = InferOutput(name, list(found[name].shape), "FP32")
            output.set_data_from_numpy(found[name], binary_data=payload.use_binary_outputs)
            outputs.append(output)
        return InferResponse(payload.id or "", self.name, outputs, use_binary_outputs=payload.use_binary_outputs)


if __name__ == "__main__":
    _, name, port = sys.argv
    ModelServer(http_port=int(port), enable_grpc=False, workers=1).start([Extremes(name)])
