"""Do the model files of a config fit together? What no schema can see, found before anything is served."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Protocol

from gateway.backends.onnx import ModelError, Signature
from gateway.config.document import Steps
from gateway.config.load import LoadedConfig, placed
from gateway.config.scalars import Prediction
from gateway.config.schema import Endpoint
from gateway.config.wording import Finding
from gateway.errors import ConfigError
from gateway.release.compile import capture


class Described(Protocol):
    @property
    def signature(self) -> Signature: ...


class Reader(Protocol):
    def read(self, path: Path) -> Described: ...


def check_models(loaded: LoadedConfig, artifacts: Reader) -> None:
    """Every file loads, all models of an endpoint share one signature and give what is scored; raises ConfigError."""
    found = [
        finding
        for name, endpoint in loaded.config.endpoints.items()
        for finding in _findings(("endpoints", name), endpoint, artifacts)
    ]
    if found:
        raise ConfigError(placed(loaded, found))


def _findings(steps: Steps, endpoint: Endpoint, artifacts: Reader) -> Iterator[Finding]:
    first: tuple[str, Signature] | None = None
    for name, variant in endpoint.variants.items():
        if variant.onnx is None:
            continue
        place = (*steps, "variants", name, "onnx")
        try:
            signature = artifacts.read(variant.onnx).signature
        except (ModelError, OSError) as error:
            yield Finding(place, str(error))
            continue
        first = first or (name, signature)
        if str(signature) != str(first[1]):
            yield Finding(place, f"is {signature}, but {first[0]} is {first[1]}")
    prediction = capture(endpoint)
    if first is not None and prediction is not None and (message := _not_given(prediction, first[1])):
        name = next(name for name, metric in endpoint.metrics.items() if metric.type == "score")
        yield Finding((*steps, "metrics", name, "prediction"), message)


def _not_given(prediction: Prediction, signature: Signature) -> str:
    """Why an answer with these outputs holds no such number, or ""."""
    outputs = {output.name: output for output in signature.outputs}
    if prediction.output and prediction.output not in outputs:
        return f"expected an output of the models ({', '.join(outputs)}), found {prediction.output!r}"
    output = outputs.get(prediction.output, signature.outputs[0])
    if output.datatype == "BYTES":
        return f"expected an output of numbers, found {output}"
    row = output.shape if -1 not in output.shape else output.shape[1:]  # the answer to a request of one row
    if -1 not in row and prediction.index >= prod(row):
        return f"expected an element of {output} below {prod(row)}, found [{prediction.index}]"
    return ""
