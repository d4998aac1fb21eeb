from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.release.rig import Rig, Rigs


@pytest.fixture
def rigs(tmp_path: Path) -> Iterator[Rigs]:
    made = Rigs(tmp_path)
    yield made
    made.close()


@pytest.fixture
def rig(rigs: Rigs) -> Rig:
    return rigs()
