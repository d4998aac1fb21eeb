"""The model files of a config, as they were when it was taken: digests, signatures, copies.

Between two configs no file is looked at: a rollback must not fail because somebody has deleted the loser's file,
and a promotion must not bring in a file that was changed on the way. What is served are copies named by their digest,
so a file that is replaced changes nothing until its config is taken anew.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from gateway.backends.onnx import Signature, digest, inspect, keep, prune
from gateway.config.schema import Config, Variant
from gateway.plan import Plan, models
from gateway.release.attempts import attempt, forget

MODELS = "models"  # where copies are kept, in the data directory


class Artifact(NamedTuple):
    """A model file that was read."""

    digest: str  # sha256, hex
    signature: Signature
    place: Path  # where to load it from: the copy, if copies are kept


class Artifacts:
    """The artifacts of one config. `folder` is where copies are kept; without one they are used where they lie."""

    def __init__(self, before: Artifacts | None = None, folder: Path | None = None) -> None:
        self._folder: Path | None = folder if before is None else before._folder
        # A file that has not changed on disk is not read again for the next config.
        self._read: dict[_Identity, Artifact] = dict(before._read) if before else {}
        self.reading: Path | None = None  # the file that was looked at last
        self._pinned: dict[Path, tuple[_Identity | None, Artifact]] = {}  # None for no file that is there

    def read(self, path: Path, place: Path | None = None) -> Artifact:
        """The file as it is now; raises ModelError or OSError if it cannot be served.

        `place` is where the links of `path` lead, if it has been looked at: no other file is read then.
        """
        self.reading = path
        place = place or path
        identity = _identity(path, place)
        known = self._read.get(identity)
        if known is None or not known.place.exists():
            known = self._read[identity] = self._taken_in(place)
        self._pinned[path] = identity, known
        return known

    def as_served(self, config: Config, plan: Plan) -> Artifacts:
        """What a plan serves in the places of a config's files, for a start in front of files that are no longer it.

        Raises ModelError if a copy cannot be loaded any more; a file that the plan does not know is read when needed.
        """
        served = Artifacts(self)
        for one in (*models(plan.endpoints), *plan.prepare):
            endpoint = config.endpoints.get(one.endpoint)
            variant = endpoint.variants.get(one.variant.name) if endpoint else None
            if variant is not None and variant.onnx is not None:
                place = Path(one.variant.onnx)
                served._pinned[variant.onnx] = None, Artifact(one.variant.digest, inspect(place), place)
        return served

    def learn(self, other: Artifacts) -> None:
        """Know what was read for another config, which may not be taken: its files may be in the next."""
        self._read |= other._read

    def has_read(self, config: Config) -> bool:
        """Whether all model files of a config are known as they are now, so that nothing takes long."""
        return all(_found(path) in self._read for path in _files(config))

    def changed(self) -> list[Path]:
        """The files that are no longer what was taken; a file that is gone is no news, its copy serves on."""
        return [path for path, (identity, _) in self._pinned.items() if _found(path) not in (None, identity)]

    def digest(self, variant: Variant) -> str:
        """The digest of a variant's file, "" for an upstream."""
        return "" if variant.onnx is None else self._of(variant.onnx).digest

    def place(self, variant: Variant) -> str:
        """From where workers load a variant's model, "" for an upstream."""
        return "" if variant.onnx is None else str(self._of(variant.onnx).place)

    def name(self, variant: Variant) -> str:
        """What a quarantine remembers: the digest of the file, or the URL and the model there."""
        model = f" ({variant.model})" if variant.model else ""
        return self.digest(variant) or f"{', '.join(variant.url or ())}{model}"

    def identity(self, variant: Variant) -> str:
        """What may not change while evidence is collected: the file, or the upstream's model. Its address may move."""
        return self.digest(variant) or variant.model or ""

    def prune(self, needed: Collection[str]) -> None:
        """Delete the copies whose digests neither this config nor anybody else needs."""
        if self._folder is not None:
            mine = {artifact.digest for _, artifact in self._pinned.values()}
            prune(self._folder, mine.union(needed))
            forget(self._folder, mine.union(needed))
            self._read = {key: one for key, one in self._read.items() if one.digest in mine or one.digest in needed}

    def _of(self, path: Path) -> Artifact:
        return self._pinned[path][1] if path in self._pinned else self.read(path)

    def _taken_in(self, path: Path) -> Artifact:
        if self._folder is None:
            return Artifact(digest(path), inspect(path), path)
        place = keep(path, self._folder)
        found = place.stem if place.parent == self._folder else digest(path)
        with attempt(self._folder, found):
            return Artifact(found, inspect(place), place)


_Identity = tuple[Path, int, int, int]


def _identity(path: Path, place: Path) -> _Identity:
    stat = place.stat()
    return path, stat.st_ino, stat.st_mtime_ns, stat.st_size


def _found(path: Path) -> _Identity | None:
    try:
        return _identity(path, path)
    except OSError:
        return None


def _files(config: Config) -> list[Path]:
    variants = (variant for endpoint in config.endpoints.values() for variant in endpoint.variants.values())
    return [variant.onnx for variant in variants if variant.onnx is not None]
