"""The loop of the HTTP/1.1 tests: its time stands still."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.serving.http1_peer import TimedLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": TimedLoop}
