"""Make everything in this folder that is not source code.

    python -m models.flight_delay.train --out models/flight_delay

Fits the models, writes them as ONNX with the replay and the feature list, then opens the written files
again and scores those for the cards. Needs the ``train`` extra; takes well under a minute on one core.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from . import export, features, replay
from .card import Table, render
from .data import Splits, load_splits
from .fit import fit_boosted, fit_distance_bands, fit_logistic, fit_twin
from .metrics import open_model, predict, score, segments
from .stories import STORIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxruntime import InferenceSession

    from .replay import Replay


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, export, measure and describe."""
    parser = argparse.ArgumentParser(description="Train the flight-delay models and draw their replay.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to")
    out: Path = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)

    splits = load_splits()
    _report(f"{len(splits.train):,} flights to train on, {len(splits.test):,} to test on")
    replay.save(out / "replay.npz", splits.replay)
    (out / "features.json").write_text(features.describe(), encoding="utf-8")
    write_models(out, splits.train)
    for name in STORIES:
        write_card(out, name, splits)
    return 0


def write_models(out: Path, train: Replay) -> None:
    """Fit each recipe once and write every model that is made of it."""
    champion = fit_logistic(train)
    export.save_logistic(out / "logistic.onnx", champion)
    export.save_logistic(out / "twin.onnx", fit_twin(train))
    export.save_crashing(out / "crashing.onnx", champion, fit_distance_bands(train))
    booster = fit_boosted(train)
    export.save_boosted(out / "boosted.onnx", booster)
    export.save_broken(out / "broken.onnx", booster)


def write_card(out: Path, name: str, splits: Splits) -> None:
    """Score the written model on both sets and write its card."""
    session = open_model(out / f"{name}.onnx")
    failed = count_failures(session, splits.replay)
    if failed:
        failure = f"It raises on {failed:,} of the {len(splits.replay):,} replayed flights, sent one by one."
        card = render(STORIES[name], splits, [], failure)
    else:
        tables = [
            measure(session, "Test half, July to December", splits.test),
            measure(session, "Replay", splits.replay),
        ]
        card = render(STORIES[name], splits, tables)
        overall = [table.rows[0][1].brier for table in tables]
        _report(f"{name:10} Brier {overall[0]:.4f}, on the replay {overall[1]:.4f}")
    (out / f"card-{name}.md").write_text(card, encoding="utf-8")


def measure(session: InferenceSession, heading: str, flights: Replay) -> Table:
    """Scores over all flights, then per origin, then per carrier."""
    probability = predict(session, flights.features)
    groups = [("all", np.ones(len(flights), dtype=np.bool_))]
    groups += [*segments(flights.origin), *segments(flights.carrier)]
    rows = [(label, score(probability[mask], flights.late[mask])) for label, mask in groups]
    return Table(heading, rows)


def count_failures(session: InferenceSession, flights: Replay) -> int:
    """How many flights the model raises on when each is a request of its own."""
    failures = 0
    for row in range(len(flights)):
        try:
            predict(session, flights.features[row : row + 1])
        except InvalidArgument:
            failures += 1
    return failures


def _report(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
