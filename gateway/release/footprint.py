"""What the models of a config weigh."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gateway.backends.onnx.weighing import Weighed, weigh
from gateway.config.schema import Config


class WeighedVariant(NamedTuple):
    endpoint: str
    variant: str
    file: Path
    weight: Weighed


class Scales:
    """Weighs files, each once."""

    def __init__(self) -> None:
        self._weighed: dict[Path, Weighed] = {}

    def read(self, path: Path, place: Path) -> Weighed:
        """Raises ModelError or OSError if the file at `place` cannot be served."""
        if path not in self._weighed:
            self._weighed[path] = weigh(place)
        return self._weighed[path]

    def of(self, config: Config) -> Iterator[WeighedVariant]:
        """Every model that a worker loads: one for each variant, even where two name the same file."""
        for endpoint_name, endpoint in config.endpoints.items():
            for name, variant in endpoint.variants.items():
                if variant.onnx is not None:
                    yield WeighedVariant(endpoint_name, name, variant.onnx, self.read(variant.onnx, variant.onnx))
