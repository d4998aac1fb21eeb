"""How good a column of probabilities is, overall and per segment, with numpy alone.

The training script and the tests score the exported files through the same few functions, so a figure
on a model card and a figure in a test cannot come from two definitions.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before it is loaded, as in gateway/backends/onnx
import onnxruntime as ort

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

SMALLEST_PROBABILITY = 1e-7
SMALLEST_SEGMENT = 0.01


@dataclass(frozen=True, slots=True)
class Scores:
    """The figures of one model on one set of flights."""

    flights: int
    late_rate: float
    mean_probability: float
    brier: float
    log_loss: float
    auc: float


def open_model(path: Path) -> ort.InferenceSession:
    """A single-threaded session that reports a failure by raising and not on standard error."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def predict(session: ort.InferenceSession, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """The probability of a late arrival for every row of ``features``."""
    (probability,) = session.run(["probability"], {"features": features})
    return np.asarray(probability, dtype=np.float32)[:, 0]


def brier(probability: NDArray[np.float32], late: NDArray[np.bool_]) -> float:
    """The mean squared distance between probability and outcome; lower is better."""
    return float(np.mean((probability.astype(np.float64) - late) ** 2))


def log_loss(probability: NDArray[np.float32], late: NDArray[np.bool_]) -> float:
    """The mean negative log-likelihood, with probabilities kept off zero and one."""
    kept = np.clip(probability.astype(np.float64), SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return float(-np.mean(np.where(late, np.log(kept), np.log1p(-kept))))


def auc(probability: NDArray[np.float32], late: NDArray[np.bool_]) -> float:
    """The chance that a late flight outranks a punctual one, a tie counting half."""
    _, group, size = np.unique(probability, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(size) - (size - 1) / 2
    positives = int(late.sum())
    negatives = late.size - positives
    if not positives or not negatives:
        return float("nan")
    rank_sum = float(mean_rank[group][late].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def score(probability: NDArray[np.float32], late: NDArray[np.bool_]) -> Scores:
    """All figures at once."""
    return Scores(
        flights=late.size,
        late_rate=float(late.mean()),
        mean_probability=float(probability.mean(dtype=np.float64)),
        brier=brier(probability, late),
        log_loss=log_loss(probability, late),
        auc=auc(probability, late),
    )


def segments(values: NDArray[np.str_]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Each value that at least one flight in a hundred has, with the mask of its flights."""
    for value in np.unique(values):
        mask = values == value
        if mask.mean() >= SMALLEST_SEGMENT:
            yield str(value), mask
