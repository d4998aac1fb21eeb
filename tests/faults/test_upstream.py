"""Cases U: what goes wrong between the gateway and an upstream (tests/README.md maps each case to its test)."""

from __future__ import annotations

import pytest

from tests.faults.gateway import Gateway, get, plain
from tests.integration.backends.upstream import Upstream, answer, echoing

pytestmark = pytest.mark.anyio


async def test_an_answer_passes_unmarked(gateway: Gateway) -> None:
    async with Upstream(echoing(answer(b"mine", status=b"500 Broken"))) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        heard = await gateway.ask(get())
    assert (heard.status, heard.body, heard.proxy_error) == (500, b"mine", "")
    assert (await gateway.exposure()).completed.error == "status"
    assert gateway.counted("a") == (1, 1)
