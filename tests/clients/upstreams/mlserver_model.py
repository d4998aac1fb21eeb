"""The largest and the smallest feature, as a custom runtime of MLServer."""

from __future__ import annotations

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse


class Extremes(MLModel):  # type: ignore[misc]
    """Answers in JSON only: MLServer has no binary tensors over REST."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        features = NumpyCodec.decode_input(payload.inputs[0])
        if features.shape[1] != 16:
            raise InferenceError(f"expected 16 features, got {features.shape[1]}")
        found = {"largest": features.max(1, keepdims=True), "smallest": features.min(1, keepdims=True)}
        asked = [output.name for output in payload.outputs or []] or list(found)
        outputs = [NumpyCodec.encode_output(name, found[name]) for name in asked]
        return InferenceResponse(model_name=self.name, model_version=self.version, id=payload.id, outputs=outputs)
