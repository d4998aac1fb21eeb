"""The replay: labelled flights to send through a gateway, readable with numpy alone.

The file is an ``.npz`` of plain arrays. It is opened with pickling off and checked against the feature
list, so a file that is damaged, foreign or older than the models is refused with a reason instead of
quietly replaying the wrong columns.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .features import CARRIERS, COLUMN, NAMES, ORIGINS

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEFAULT_PATH = Path(__file__).with_name("replay.npz")
MEMBERS = ("features", "late", "flight", "feature_names", "carriers", "origins")


class ReplayError(ValueError):
    """The file is not a replay that fits these models."""


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """Labelled flights, row by row in the order in which they are to be used.

    ``late`` says whether the flight arrived fifteen minutes late or more, ``origin`` and ``carrier``
    are the segments, and ``flight`` is a unique name such as ``UA1545-EWR-2013-07-04``.
    """

    features: NDArray[np.float32]
    late: NDArray[np.bool_]
    origin: NDArray[np.str_]
    carrier: NDArray[np.str_]
    flight: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.late)

    def take(self, rows: NDArray[np.intp]) -> Replay:
        """The given rows, in the given order."""
        return Replay(
            features=self.features[rows],
            late=self.late[rows],
            origin=self.origin[rows],
            carrier=self.carrier[rows],
            flight=self.flight[rows],
        )

    def shuffled(self, seed: int) -> Replay:
        """The same flights in another order, the same for the same seed."""
        return self.take(np.random.default_rng(seed).permutation(len(self)))


def load(path: Path | str = DEFAULT_PATH) -> Replay:
    """Read a replay file; raise ReplayError when it is something else."""
    members = _read_members(Path(path))
    _check(members, Path(path))
    features = members["features"]
    return Replay(
        features=features,
        late=members["late"],
        origin=members["origins"][features[:, COLUMN["origin"]].astype(np.intp)],
        carrier=members["carriers"][features[:, COLUMN["carrier"]].astype(np.intp)],
        flight=members["flight"].astype(np.str_),
    )


def save(path: Path, replay: Replay) -> None:
    """Write a replay file whose bytes depend on its contents only."""
    np.savez_compressed(
        path,
        features=replay.features,
        late=replay.late,
        flight=replay.flight.astype(np.bytes_),
        feature_names=np.array(NAMES),
        carriers=np.array(CARRIERS),
        origins=np.array(ORIGINS),
    )


def _read_members(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file:  # ours to close: numpy leaves a damaged archive open
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ReplayError(f"{path}: a single array, not a replay archive")
            absent = [name for name in MEMBERS if name not in archive.files]
            if absent:
                raise ReplayError(f"{path}: not a replay archive, it lacks {', '.join(absent)}")
            return {name: archive[name] for name in MEMBERS}
    except ReplayError:
        raise
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ReplayError(f"{path}: not readable as plain arrays: {error}") from error


def _check(members: dict[str, NDArray[Any]], path: Path) -> None:
    features, late, flight = members["features"], members["late"], members["flight"]
    if tuple(members["feature_names"].tolist()) != NAMES:
        raise ReplayError(f"{path}: its features are not the ones these models take")
    if tuple(members["carriers"].tolist()) != CARRIERS or tuple(members["origins"].tolist()) != ORIGINS:
        raise ReplayError(f"{path}: its carrier or origin codes are not the ones these models take")
    if features.dtype != np.float32 or features.ndim != 2 or features.shape[1] != len(NAMES):
        found = f"{features.dtype}{list(features.shape)}"
        raise ReplayError(f"{path}: features are {found}, not float32[n, {len(NAMES)}]")
    if late.dtype != np.bool_ or late.shape != (len(features),) or flight.shape != late.shape:
        raise ReplayError(f"{path}: not one label and one name for each of {len(features)} rows")
    if not np.isfinite(features).all():
        raise ReplayError(f"{path}: a feature is NaN or infinite")
    for name, codes in (("carrier", CARRIERS), ("origin", ORIGINS)):
        column = features[:, COLUMN[name]]
        if not np.isin(column, np.arange(len(codes))).all():
            raise ReplayError(f"{path}: a carrier or origin outside its list")
