"""The least that can serve a model over HTTP in Python: a bare ASGI callable, orjson, onnxruntime; nothing checked."""

import os

import numpy as np
import onnxruntime as ort
import orjson

options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
INPUT, OUTPUTS = session.get_inputs()[0], session.get_outputs()
DTYPE = {"tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(int64)": np.int64}[INPUT.type]
DATATYPES = {"float32": "FP32", "int32": "INT32", "int64": "INT64"}
HEADERS = [(b"content-type", b"application/json")]


async def app(scope, receive, send):
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    tensor = orjson.loads(body)["inputs"][0]
    rows = np.array(tensor["data"], DTYPE).reshape(tensor["shape"])
    outputs = [
        {
            "name": spec.name,
            "datatype": DATATYPES[values.dtype.name],
            "shape": values.shape,
            "data": np.ascontiguousarray(values).reshape(-1),
        }
        for spec, values in zip(OUTPUTS, session.run(None, {INPUT.name: rows}), strict=True)
    ]
    answer = orjson.dumps({"model_name": "model", "outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [*HEADERS, (b"content-length", b"%d" % len(answer))],
        }
    )
    await send({"type": "http.response.body", "body": answer})
