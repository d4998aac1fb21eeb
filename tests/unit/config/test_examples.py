"""The examples that people start from are right."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.load import load, warnings
from gateway.release.artifacts import Artifacts
from gateway.release.models import check_models

EXAMPLES = sorted((Path(__file__).parents[3] / "config").glob("*.yaml"))


def test_there_are_examples() -> None:
    assert {example.name for example in EXAMPLES} >= {
        "chat.yaml",
        "demo.yaml",
        "fixed-split.yaml",
        "flight-delay.yaml",
        "many-challengers.yaml",
        "revenue.yaml",
        "shadow.yaml",
    }


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_loads_without_a_warning(example: Path) -> None:
    loaded = load(example)
    assert warnings(loaded) == []
    check_models(loaded, Artifacts())
