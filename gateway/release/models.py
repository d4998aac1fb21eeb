"""Do the model files of a config fit together? What no schema can see, found before anything is served."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import NamedTuple, Protocol

from gateway.backends.onnx import ModelError, Signature, confined
from gateway.config.document import Steps
from gateway.config.load import LoadedConfig, placed
from gateway.config.places import Prediction
from gateway.config.schema import Endpoint
from gateway.config.wording import Finding
from gateway.errors import ConfigError
from gateway.release.artifacts import Artifacts
from gateway.release.compile import capture


class Described(Protocol):
    @property
    def digest(self) -> str: ...
    @property
    def signature(self) -> Signature: ...


class Reader(Protocol):
    def read(self, path: Path, place: Path) -> Described:
        """The file that lies at `place`, known as `path`."""
        ...


def read_models(loaded: LoadedConfig, before: Artifacts) -> Artifacts:
    """The artifacts of a config; files that have not changed on disk are not read again. Raises ConfigError."""
    artifacts = Artifacts(before)
    check_models(loaded, artifacts)
    return artifacts


def check_models(loaded: LoadedConfig, artifacts: Reader) -> None:
    """Every file loads, all models of an endpoint share one signature and give what is scored; raises ConfigError."""
    reader = _Confined(artifacts, (loaded.path.parent, *loaded.config.model_roots))
    found = [
        finding
        for name, endpoint in loaded.config.endpoints.items()
        for finding in _findings(("endpoints", name), endpoint, reader)
    ]
    if found:
        raise ConfigError(placed(loaded, found))


class _Confined(NamedTuple):
    """Reads only what lies below the roots, wherever a path or its links may point."""

    reader: Reader
    roots: tuple[Path, ...]

    def read(self, path: Path) -> Described:
        try:
            place = confined(path, self.roots)
        except ModelError as error:
            raise ModelError(f"{error}; model_roots can name more folders") from error
        return self.reader.read(path, place)


def _findings(steps: Steps, endpoint: Endpoint, artifacts: _Confined) -> Iterator[Finding]:
    first: tuple[str, Signature] | None = None
    for name, variant in endpoint.variants.items():
        if variant.onnx is None:
            continue
        place = (*steps, "variants", name)
        try:
            found = artifacts.read(variant.onnx)
        except (ModelError, OSError) as error:
            yield Finding((*place, "onnx"), str(error))
            continue
        if variant.sha256 not in (None, found.digest):
            yield Finding((*place, "sha256"), f"expected the digest of {variant.onnx}, which is {found.digest}")
        first = first or (name, found.signature)
        if str(found.signature) != str(first[1]):
            yield Finding((*place, "onnx"), f"is {found.signature}, but {first[0]} is {first[1]}")
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
