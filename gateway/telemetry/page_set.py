"""The status pages of a node together: sums that never fall, whoever dies."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from gateway import ends
from gateway.files import is_locked
from gateway.telemetry import metrics
from gateway.telemetry.status_page import (
    IN_NATIVE_CODE,
    LOAD_FAILURES,
    Directory,
    Model,
    PageReading,
    Series,
    Word,
    read_page,
)

log = logging.getLogger(__name__)

_OF_THE_LIVING = metrics.MOMENTARY | {LOAD_FAILURES, IN_NATIVE_CODE}  # series that end with their worker


class Fallen(NamedTuple):
    """A worker that ended unasked: how (see `gateway.ends`), and what its page said last."""

    reading: PageReading
    how: str


class PageSet:
    """All pages of a node: the living as they are, the dead folded into a base, so that sums never fall.

    One process owns the base; it alone may hold a PageSet.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._base_path = directory / "base.json"
        self._base, self._folded = self._load_base()
        self._waiting: list[PageReading] = []  # of the dead: no base, or nobody has told how they died
        self._fallen: list[Fallen] = []
        self._told: set[str] = set()  # incarnations in `fallen` whose pages are still there
        self._directories: dict[Path, Directory] = {}
        self._unsaved = False  # the disk does not take the base, which has been said

    def read(self) -> list[PageReading]:
        """The living pages. Pages of the dead are folded into the base on the way."""
        living: list[PageReading] = []
        self._waiting.clear()
        told = ends.told(self._directory)  # before the pages: whoever has ended by now has its page here
        paths = sorted(self._directory.glob("*.page"))
        self._directories = {path: self._directories.get(path) or Directory() for path in paths}
        for path in paths:
            try:
                dead = not is_locked(path)  # asked first: what the dead wrote is complete
                reading = read_page(path, self._directories[path])
            except FileNotFoundError:
                continue  # somebody cleared the directory
            if dead:
                spool = reading.word(Word.SPOOL) if reading else 0
                self._bury(path, reading, told.pop(spool, ""))
            elif reading is not None:
                living.append(reading)
        for spool, how in told.items():  # they ended before they had a page
            if self._save_base(_sum(self._base, _ends(how, ())), self._folded):
                ends.forget(self._directory, spool)
        return living

    def fallen(self) -> list[Fallen]:
        """Workers that ended unasked, each told once."""
        fallen, self._fallen = self._fallen, []
        return fallen

    def totals(self, living: list[PageReading]) -> dict[Series, tuple[int, ...]]:
        """Every series summed over the living and the dead."""
        sums = dict(self._base)
        for reading in [*self._waiting, *living]:
            _add(sums, reading.series)
        return sums

    def total(self, series: Series, living: list[PageReading]) -> int:
        """One counter, summed over the living and the dead."""
        pages = (self._base, *(reading.series for reading in (*self._waiting, *living)))
        return sum(page[series][0] for page in pages if series in page)

    def _bury(self, path: Path, reading: PageReading | None, how: str) -> None:
        # The base names the incarnations that it contains, so a crash between the two steps counts none twice.
        if path.stem not in self._folded and reading is not None:
            if not how and reading.in_native_code:
                self._waiting.append(reading)  # the supervisor is about to tell what became of it
                return
            if how == ends.UNKNOWN and reading.word(Word.LEFT):
                how = ""  # with a node that was stopped
            if how and path.stem not in self._told:
                self._told.add(path.stem)
                self._fallen.append(Fallen(reading, how))
            lasting = {key: values for key, values in reading.series.items() if key[0] not in _OF_THE_LIVING}
            base = _sum(self._base, lasting, _ends(how, reading.in_native_code))
            # Only incarnations whose file may still exist need to be remembered.
            folded = {stem for stem in self._folded if path.with_name(f"{stem}.page").exists()} | {path.stem}
            if not self._save_base(base, folded):
                self._waiting.append(reading)
                return
        if reading is not None:
            ends.forget(self._directory, reading.word(Word.SPOOL))
        path.unlink(missing_ok=True)
        self._told.discard(path.stem)

    def _load_base(self) -> tuple[dict[Series, tuple[int, ...]], set[str]]:
        try:
            stored = json.loads(self._base_path.read_bytes())
            base = {(name, tuple(labels)): tuple(values) for name, labels, values in stored["series"]}
            return base, set(stored["folded"])
        except FileNotFoundError:
            return {}, set()
        except (ValueError, KeyError, TypeError):
            # Counters that start anew are what every scraper copes with; a node that does not start is worse.
            log.exception("%s: damaged; the counters of dead workers start from zero", self._base_path)
            return {}, set()

    def _save_base(self, base: dict[Series, tuple[int, ...]], folded: set[str]) -> bool:
        series = [[name, list(labels), list(values)] for (name, labels), values in base.items()]
        temporary = self._base_path.with_suffix(".new")
        try:
            with temporary.open("w") as file:
                json.dump({"folded": sorted(folded), "series": series}, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._base_path)
        except OSError as error:
            if not self._unsaved:  # it is tried ten times a second
                log.warning("%s: cannot be written, the pages of the dead stay: %s", self._base_path, error)
            self._unsaved = True
            return False
        self._unsaved = False
        self._base, self._folded = base, folded
        return True


def _ends(how: str, models: Iterable[Model]) -> dict[Series, tuple[int, ...]]:
    """What the end of a worker adds to the counters."""
    if not how:
        return {}
    if how == ends.MEMORY:
        return {(metrics.RECYCLED.name, ()): (1,)}
    counts: dict[Series, tuple[int, ...]] = {(metrics.DEATHS.name, (how,)): (1,)}
    for one in models if how in ends.NATIVE else ():
        counts[metrics.MODEL_CRASHES.name, (one.endpoint, one.variant)] = (1,)
    return counts


def _sum(*parts: dict[Series, tuple[int, ...]]) -> dict[Series, tuple[int, ...]]:
    sums: dict[Series, tuple[int, ...]] = {}
    for part in parts:
        _add(sums, part)
    return sums


def _add(sums: dict[Series, tuple[int, ...]], more: dict[Series, tuple[int, ...]]) -> None:
    for key, values in more.items():
        before = sums.get(key)
        # Another length: the other version of the program had other buckets, which cannot be added.
        if before is None or len(before) != len(values):
            sums[key] = values
        else:
            sums[key] = tuple(a + b for a, b in zip(before, values, strict=True))
