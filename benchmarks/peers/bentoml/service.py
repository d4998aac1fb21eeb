"""The service that BentoML's documentation has one write, around onnxruntime; the body is that of the others."""

import os
from typing import Any

import bentoml
import numpy as np
import onnxruntime as ort
from pydantic import BaseModel

DATATYPES = {"float32": "FP32", "int32": "INT32", "int64": "INT64"}


class Tensor(BaseModel):
    name: str
    datatype: str
    shape: list[int]
    data: list[float]


@bentoml.service(workers=1)
class Predict:
    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    @bentoml.api(route="/infer")
    def infer(self, inputs: list[Tensor]) -> dict[str, Any]:
        fed = {tensor.name: np.array(tensor.data, np.float32).reshape(tensor.shape) for tensor in inputs}
        outputs = [
            {
                "name": spec.name,
                "datatype": DATATYPES[values.dtype.name],
                "shape": list(values.shape),
                "data": values.reshape(-1).tolist(),
            }
            for spec, values in zip(self.session.get_outputs(), self.session.run(None, fed), strict=True)
        ]
        return {"model_name": "model", "outputs": outputs}
