"""What a model weighs is measured in a process of its own, whatever becomes of that."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.backends.onnx import ModelError, digest, inspect, weighing
from gateway.backends.onnx.weighing import weigh
from tests.unit.backends import tiny_onnx


def test_a_model_weighs_what_its_weights_do(tmp_path: Path) -> None:
    path = tiny_onnx.heavy(tmp_path / "m.onnx", 32 << 20)
    weighed = weigh(path)
    assert weighed[:3] == (digest(path), inspect(path), path.stat().st_size)
    assert 32 << 20 <= weighed.resident < 96 << 20


def test_a_broken_file_is_told_as_when_it_is_loaded_here(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_text("no model")
    with pytest.raises(ModelError, match=r"m\.onnx: cannot be loaded"):
        weigh(path)


def test_a_model_that_takes_its_process_down_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"m\.onnx: brings down the process that loads it \(exit code 3\)"):
        weigh(cast("Path", Deadly(tiny_onnx.largest(tmp_path / "m.onnx"))))


def test_a_model_that_does_not_come_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weighing, "LOADING", 0.0)
    with pytest.raises(ModelError, match=r"m\.onnx: was not loaded within 0 s"):
        weigh(tiny_onnx.largest(tmp_path / "m.onnx"))


class Deadly:
    """A path that ends the process to which it is sent."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._path, name)

    def __str__(self) -> str:
        return str(self._path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (3,)
