"""tritonclient's asyncio client."""

from __future__ import annotations

from collections.abc import Mapping

from tritonclient.http.aio import InferenceServerClient

from tests.clients.talk.script import Scenario, main
from tests.clients.talk.triton import SCENARIOS, talk


async def run(address: str, model: str, scenarios: Mapping[str, Scenario]) -> None:
    await talk(InferenceServerClient(address), model, scenarios)


if __name__ == "__main__":
    main(run, SCENARIOS)
