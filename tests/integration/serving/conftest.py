"""A worker of one's own for every test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway import memory
from tests.integration.serving.local_worker import LocalWorker, local_worker

memory.keep_large_blocks_apart()  # as every worker does


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The loop that the data plane runs on."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
async def worker(tmp_path: Path, anyio_backend: Any) -> AsyncIterator[LocalWorker]:
    async with local_worker(tmp_path) as local:
        yield local
