from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.onnx import OnnxModel, load, warm_up
from tests.unit.backends.models import Build, unload


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Build]:
    """Writes and loads a model; at the end no thread of any may be left."""
    monkeypatch.setattr(warm_up, "TRIAL", 0.5)  # some models hang on the rows that try batching
    models: list[OnnxModel] = []

    def loaded(write: Callable[[Path], Path], **options: Any) -> OnnxModel:
        models.append(load(write(tmp_path / f"{write.__name__}.onnx"), "", **options))
        return models[-1]

    yield loaded
    for model in models:
        unload(model)
