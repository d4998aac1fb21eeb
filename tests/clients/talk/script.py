"""What all client scripts share. They run in the clients' environments: nothing but numpy and the standard library."""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEATURES = 16
ROW: NDArray[Any] = np.arange(-4, FEATURES - 4, dtype=np.float32).reshape(1, FEATURES) / 2
ROWS = np.repeat(ROW, 4000, axis=0)  # an answer large enough to be compressed
Scenario = Callable[[Any, str], Coroutine[Any, Any, Any]]


async def settled(value: Any) -> Any:
    """The result of a call to either kind of client."""
    return await value if inspect.isawaitable(value) else value


def summary(values: NDArray[Any] | None) -> Any:
    """A tensor as JSON: its shape, its datatype and the values that occur in it."""
    if values is None:
        return None
    return {"shape": list(values.shape), "dtype": str(values.dtype), "values": sorted(set(values.ravel().tolist()))}


async def play(client: Any, model: str, scenarios: Mapping[str, Scenario], refused: type[Exception]) -> None:
    """Run every scenario and print what came of it; an error of the client is a result too."""
    results: dict[str, Any] = {}
    for name, scenario in scenarios.items():
        try:
            results[name] = await scenario(client, model)
        except refused as error:
            results[name] = {"refused": str(error)}
    json.dump(results, sys.stdout)


def main(talk: Callable[[str, str, Mapping[str, Scenario]], Awaitable[None]], scenarios: Iterable[Scenario]) -> None:
    """Called with the server's host:port, the model's name and the names of scenarios, or none for all."""
    _, address, model, *names = sys.argv
    known = {scenario.__name__: scenario for scenario in scenarios}

    async def run() -> None:
        await talk(address, model, {name: known[name] for name in names or known})

    asyncio.run(run())
