"""A gateway of one's own for every case: a real worker behind a real socket, in process, on the data plane's loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.gateway import Gateway, open_gateway


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The loop that the data plane runs on."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
async def gateway(tmp_path: Path, anyio_backend: Any) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path) as opened:
        yield opened
