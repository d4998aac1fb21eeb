"""Recorded flights as live traffic: requests in a seeded order, and what each flight did later."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Flights:
    """Flights in the order of their departure from the demo: features, origin, and whether each came late."""

    features: NDArray[np.float32]
    origin: list[str]
    late: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.late)

    def request(self, index: int) -> bytes:
        """The inference request of one flight, Open Inference Protocol."""
        row = self.features[index]
        tensor = {"name": "features", "datatype": "FP32", "shape": [1, len(row)], "data": row.tolist()}
        return orjson.dumps({"inputs": [tensor]})

    def score(self, index: int, probability: float) -> float:
        """The outcome: squared error of the probability that was predicted (Brier score)."""
        return (probability - float(self.late[index])) ** 2


def load(path: Path, seed: int) -> Flights:
    """The replay file in the order of the seed."""
    with np.load(path, allow_pickle=False) as archive:
        features, late = archive["features"], archive["late"]
        names, origins = archive["feature_names"].tolist(), archive["origins"]
    order = np.random.default_rng(seed).permutation(len(late))
    codes = features[order, names.index("origin")].astype(int)
    return Flights(features[order], [str(origins[code]) for code in codes], late[order])
