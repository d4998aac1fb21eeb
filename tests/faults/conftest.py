"""A gateway of one's own for every case: a real worker behind a real socket, in process, on the data plane's loop; or
a node of processes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.gateway import Gateway, open_gateway
from tests.faults.users import BY_USER
from tests.integration.process.conftest import HEAD
from tests.integration.process.node import Node, running


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The loop that the data plane runs on."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
async def gateway(tmp_path: Path, anyio_backend: Any) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path) as opened:
        yield opened


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    config = tmp_path / "gateway.yaml"
    config.write_text(HEAD + BY_USER)
    with running(config, workers=2) as made:
        yield made
