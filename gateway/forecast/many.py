"""Many runs of one experiment, each with a seed of its own, on one or several processes."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from gateway.forecast.arrivals import World
from gateway.forecast.subject import Subject
from gateway.forecast.trial import Pace, Result, Trial


class Batch(NamedTuple):
    """What one process needs to know of a series of runs."""

    subject: Subject
    world: World
    pace: Pace


def results(batch: Batch, runs: int, seed: int, jobs: int, done: Callable[[], None]) -> list[Result]:
    """One result a run. They depend on the seed alone, not on the number of processes."""
    seeds = np.random.SeedSequence(seed).spawn(runs)
    found = []
    for result in _each(batch, seeds, jobs):
        found.append(result)
        done()
    return found


def _each(batch: Batch, seeds: list[np.random.SeedSequence], jobs: int) -> Iterator[Result]:
    if jobs <= 1:
        yield from map(partial(_run, batch), seeds)
        return
    # Forked processes inherit the world, however large its log is.
    global _inherited
    _inherited = batch
    with warnings.catch_warnings():
        # Later Pythons warn of threads that a fork leaves behind; those of numpy are idle here.
        warnings.simplefilter("ignore", DeprecationWarning)
        pool = multiprocessing.get_context("fork").Pool(jobs)
    with pool:
        yield from pool.imap(_run_inherited, seeds, chunksize=max(1, min(20, len(seeds) // (4 * jobs))))


_inherited: Batch | None = None


def _run_inherited(seed: np.random.SeedSequence) -> Result:
    assert _inherited is not None
    return _run(_inherited, seed)


def _run(batch: Batch, seed: np.random.SeedSequence) -> Result:
    return Trial(batch.subject, batch.world, batch.pace, seed).run()
