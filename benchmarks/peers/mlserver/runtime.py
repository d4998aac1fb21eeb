"""The custom runtime that MLServer's documentation has one write, around onnxruntime."""

import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxRuntime(MLModel):
    async def load(self) -> bool:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        uri = self._settings.parameters.uri
        self._session = ort.InferenceSession(uri, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        inputs = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        values = self._session.run(None, inputs)
        outputs = [
            NumpyCodec.encode_output(spec.name, value)
            for spec, value in zip(self._session.get_outputs(), values, strict=True)
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)
