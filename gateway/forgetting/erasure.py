"""Erasure of a unit: nothing of it stays but its votes, which no longer say whose they were.

Why no test is spoilt by that (rule R1). DROP: whoever asks to be erased may do so because of what it met. So its votes
stay, and what they count stays as it was known; and a request that is not a vote yet becomes one first: a unit is
erased as soon as everything that it did before it asked is admitted and its requests have ended. Where an outcome may
still come, the erasure ends its window, for either variant alike. COIN: should the unit come back, nobody can know that
it was here, so it votes as a stranger. If the split is still the same, that repeats a coin that was thrown before. This
one thing is what erasing costs: each return may weigh as much as one vote, and the ledger says how many units were
erased, hence how many there can be.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from gateway.assignment.hashing import bucket, salt_key, unit_digest
from gateway.clock import Clock
from gateway.events import decision_id
from gateway.evidence.definition import Definition, decode
from gateway.evidence.engine import AnyEngine
from gateway.forgetting.completion import Completion
from gateway.forgetting.settling import settle
from gateway.store.base import Erasure, UnitKey
from gateway.store.facts import signed
from gateway.store.keeping import Keeping, UnitRequest
from gateway.store.places import ordinal_of

log = logging.getLogger(__name__)

SCANNED = 100_000  # requests that one call looks at
LOCATED = 500  # of them those whose votes one call looks for
HOUR_US = 3_600_000_000
_SEGMENT = 3600.0  # seconds after which a spool's file ends: it is kept from then on
_SLACK = 600.0  # seconds for shipping the end of that file, and for who is given up meanwhile
_HASHES = 1 << 64
_UNLESS = "unless a node is away: then as long after its return"


class Asked(NamedTuple):
    """What whoever asks is told."""

    until: int  # microseconds since the epoch: then nothing of the unit is left, unless a node is away
    text: str


def ask(
    store: Keeping,
    pepper: bytes,
    unit: bytes,
    endpoint: str,
    actor: str,
    reason: str,
    now: int,
    kept_seconds: float,
) -> Asked:
    """Write down that a unit is to be erased, at one endpoint or (for "") at all, and that somebody asked for it.

    The unit is given as requests give it; it is not written down, nor is its hash in the ledger. `kept_seconds` is how
    long files of facts stay once they are in the store. Raises StoreError.
    """
    until = now + round((_SEGMENT + kept_seconds + _SLACK) * 1e6)
    experiments = [id for id, (where, _) in store.experiments().items() if endpoint in ("", where)]
    buckets = {id: signed(bucket(salt_key(id), unit)) for id in experiments}
    where = f" at {endpoint}" if endpoint else ""
    text = f"erasure of a unit{where}: complete by {_date(until)}, {_UNLESS}{f' ({reason})' if reason else ''}"
    with store.transaction(durable=True):
        store.ask_erasure(Erasure(unit_digest(pepper, unit), endpoint, now, 0, until, buckets))
        _append(store, now, endpoint, {"actor": actor, "reason": "asked", "text": text, "until": until})
    return Asked(until, text)


class _Search:
    """What was found so far of the units that are to be erased."""

    def __init__(self, asked: int) -> None:
        self.asked = asked  # it is about those whose erasure was asked for by then
        self.marks: dict[int, int] = {}  # by spool: up to which decision all were looked at
        self.unlocated: list[UnitRequest] = []
        self.located: list[UnitRequest] = []
        self.votes: dict[_Vote, int] = {}  # with their decisions


class _Vote(NamedTuple):
    experiment: str
    ordinal: int


class Erasures:
    """Erases units piece by piece, so that no round of the control process waits for a search through all requests.

    Owned by the process that folds. `expired` tells the time before which requests have gone by their age.
    """

    def __init__(self, store: Keeping, clock: Clock, expired: Callable[[], int]) -> None:
        self._store = store
        self._clock = clock
        self._completion = Completion(store, clock, expired)
        self._engine: AnyEngine | None = None
        self._search: _Search | None = None

    def tick(self, engine: AnyEngine) -> None:
        """A bounded piece of work, between two steps of the engine that folds. Raises StoreError."""
        if engine is not self._engine:  # the one before has failed, and what was found may be lost with its last step
            self._engine, self._search = engine, None
        erasures = self._store.erasures()
        if not erasures:
            return
        self._completion.tick(erasures, engine)
        waiting = [one for one in erasures if not one.through]
        # Of a step without a row nothing is kept, so what is older than it may still come in time, and have a vote.
        if any(engine.watermark <= one.at < engine.seen_through for one in waiting):
            engine.write_down()
        if due := [one for one in waiting if one.at < engine.watermark]:
            self._go_on(due, engine)

    def _go_on(self, due: list[Erasure], engine: AnyEngine) -> None:
        if self._search is None or all(one.at > self._search.asked for one in due):
            self._search = _Search(max(one.at for one in due))
        search = self._search
        if not self._scan(search):
            return
        if search.unlocated:
            self._locate(search, LOCATED)
        else:
            self._erase(search, [one for one in due if one.at <= search.asked], engine)

    # ------------------------------------------------------------------ finding

    def _scan(self, search: _Search) -> bool:
        """Look at some more requests that are admitted: there is no index from units to them, for every request would
        pay for it. Whether all were looked at."""
        left = SCANNED
        for spool, mark in sorted(self._store.admitted().items()):
            after = search.marks.get(spool, decision_id(spool, 0))
            while after < mark:
                if left <= 0:
                    return False
                first = self._store.next_decision(after) or mark + 1
                end = min(first + left, mark + 1)
                if first <= mark:
                    search.unlocated += self._store.requests_of_erased(first - 1, end, search.asked)
                    left -= end - first
                after = search.marks[spool] = end - 1
        return True

    def _locate(self, search: _Search, most: int) -> None:
        """Find the votes of some requests; most have none."""
        some, search.unlocated = search.unlocated[:most], search.unlocated[most:]
        for request in some:
            self._find(search, request.experiment, request.at, request.decision)
        search.located += some

    def _find(self, search: _Search, experiment: str, at: int, decision: int) -> None:
        ordinal = ordinal_of(self._store, experiment, at, decision) if experiment and decision else None
        if ordinal is not None:
            search.votes[_Vote(experiment, ordinal)] = decision

    # ------------------------------------------------------------------ erasing

    def _erase(self, search: _Search, erasures: list[Erasure], engine: AnyEngine) -> None:
        """Everything in one transaction; nothing while some request has not ended."""
        with self._store.transaction(durable=True, leading=True):
            if not self._scan(search):
                return
            self._locate(search, len(search.unlocated))
            keys = sorted({*_keys(erasures), *(_key(request) for request in search.located)})
            for key, known in zip(keys, self._store.known_units(keys), strict=True):
                if known is not None:  # its request may have expired
                    self._find(search, key.experiment, known.at, known.decision)
            definitions = {id: decode(text) for id, (_, text) in self._store.experiments().items()}
            if not all(self._has_ended(definitions[vote.experiment], vote.ordinal) for vote in search.votes):
                return
            for vote in sorted(search.votes):
                self._anonymise(definitions[vote.experiment], vote.ordinal)
            self._delete(search, erasures, keys, engine.watermark)
            self._write_down(search, erasures, engine.watermark)
        self._search = None
        engine.forget(keys)

    def _has_ended(self, definition: Definition, ordinal: int) -> bool:
        """Whether the request of a vote has ended: cut off, it would count as failed."""
        cursors = self._store.cursors(definition.id)
        return all(cursors.get(one.name, 0) >= ordinal for one in definition.metrics if one.source == "gateway")

    def _anonymise(self, definition: Definition, ordinal: int) -> None:
        settle(self._store, definition, ordinal - 1, ordinal)
        [place] = self._store.vote_places(definition.id, ordinal - 1, 1)
        at = self._coarse(definition, place.at)
        self._store.anonymise(definition.id, ordinal, at, covariates=definition.covariates > 0)

    def _coarse(self, definition: Definition, at: int) -> int:
        """The hour of a vote, held within its business cycle.

        The vote with which the cycles begin keeps its time: the evidence has it, too.
        """
        hour = at // HOUR_US * HOUR_US
        if not definition.cycle_us:
            return hour
        tally = self._store.evidence(definition.id).get("tally")
        begin: int = msgspec.msgpack.decode(tally)["first_at"] if tally else 0
        if begin:
            return max(hour, begin + (at - begin) // definition.cycle_us * definition.cycle_us)
        [first] = self._store.vote_places(definition.id, 0, 1)
        return max(hour, first.at)

    def _delete(self, search: _Search, erasures: list[Erasure], keys: list[UnitKey], through: int) -> None:
        store, until = self._store, max(one.until for one in erasures)
        store.forget_requests(search.located, until)
        for vote, decision in search.votes.items():
            store.forget_revisits(vote.experiment, [decision])
        store.forget_units(keys)
        for one in erasures:
            store.forget_unit_outcomes(one.unit, [key.experiment for key in keys if key.unit == one.unit], through)
            store.erased_through(one, through)

    def _write_down(self, search: _Search, erasures: list[Erasure], through: int) -> None:
        votes = dict(sorted(Counter(vote.experiment for vote in search.votes).items()))
        counted = {"units": len(erasures), "requests": len(search.located), "votes": votes}
        text = f"{len(erasures)} erased: {len(search.located)} requests deleted, {len(search.votes)} votes anonymised"
        body = {"actor": "gateway", "reason": "erased", "text": text, "watermark": through, **counted}
        _append(self._store, self._clock.wall_us(), erasures[0].endpoint if len(erasures) == 1 else "", body)
        log.info("%s", text)


def _append(store: Keeping, now: int, endpoint: str, body: Mapping[str, Any]) -> None:
    """A row of the ledger that is about no experiment."""
    last = store.last_step()
    plain = {"from": None, "to": None, "variant": "", "config_digest": "", "evidence": None, "terms": None}
    store.append_ledger(now, last.step if last else 0, endpoint, "", "erase", {**plain, "watermark": 0, **body})


def _keys(erasures: Iterable[Erasure]) -> Iterator[UnitKey]:
    """Where units stand that are known, whatever became of their requests."""
    for one in erasures:
        for experiment, place in one.buckets.items():
            yield UnitKey(experiment, place % _HASHES, one.unit)


def _key(request: UnitRequest) -> UnitKey:
    return UnitKey(request.experiment, request.bucket, request.unit)


def _date(at: int) -> str:
    return datetime.fromtimestamp(at / 1e6, tz=UTC).isoformat(timespec="seconds")
