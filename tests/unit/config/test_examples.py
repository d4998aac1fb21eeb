"""The examples that people start from are right."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.load import load, warnings

EXAMPLES = sorted((Path(__file__).parents[3] / "config").glob("*.yaml"))


def test_there_are_examples() -> None:
    assert {example.name for example in EXAMPLES} >= {"flight-delay.yaml", "fixed-split.yaml"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_loads_without_a_warning(example: Path) -> None:
    assert warnings(load(example)) == []
