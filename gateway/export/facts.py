"""The tables that grow with the traffic: exposures, their outcomes and shadows, and the votes that were made of them.

Each is read in chunks by its key, in the order of the time at which units were assigned, and up to one watermark. What
belongs to an exposure is filed under the exposure's time, so a range of times never parts the two.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.events import FORCED
from gateway.export.columns import Column, Row
from gateway.export.source import OpenStore
from gateway.export.spans import Span, merged, spans, spans_of

if TYPE_CHECKING:
    from gateway.export.moment import Moment  # which reads evidence: that takes a second to import

CHUNK = 2_000  # rows in memory, of each spool that lived at one time


class Selection(NamedTuple):
    """Which part of the log: one experiment or all, and units that were assigned from `since` until before `until`."""

    experiment: str | None
    since: int
    until: int


# What is known of the exposure of a fact. The view `request` would be read whole for this, where it is outer-joined.
ASSIGNED = "LEFT JOIN assignment a ON a.decision = {0}.decision LEFT JOIN draw d ON d.id = a.draw"
OUTCOME = (
    "o.decision, a.at, d.endpoint, d.experiment, d.variant, o.metric, o.id, o.value, o.at, nullif(o.happened_at, 0)"
)

_EXPOSURE = (
    Column("decision", "integer", "id of the decision: spool number and sequence"),
    Column("at", "time", "when the unit was assigned"),
    Column("endpoint", "word", ""),
    Column("experiment", "word", "empty where the split is fixed"),
    Column("stage", "word", "of the release"),
    Column("variant", "word", "that was assigned"),
    Column("pi", "number", "probability of that variant, given the plan", "share"),
    Column("unit", "hash", "keyed hash of the unit's id"),
    Column("segments", "json", "values by segment"),
    Column("covariates", "json", "numbers known before the coin, in the order of the config"),
    Column("revision", "integer", "of the plan that drew"),
    Column("forced", "flag", "the variant was named by an authorised caller: no coin, no vote"),
)
_COMPLETION = (
    Column("completed_at", "time", "when the last byte was handed over; empty while that is not known"),
    Column("served", "word", "the variant that answered"),
    Column("ended", "word", "answered, failed, client_closed or rejected"),
    Column("status", "integer", "of HTTP"),
    Column("first_byte_us", "integer", "until the first byte; 0 if there was none", "us"),
    Column("total_us", "integer", "until the last byte", "us"),
    Column("error", "word", "how the assigned variant's own attempt failed; empty if it did not"),
    Column("tries", "integer", "how often the assigned variant was asked"),
    Column("prediction", "number", "what the served variant predicted, where a metric scores it"),
)
EXPOSURES = (*_EXPOSURE, *_COMPLETION)
OUTCOMES = (
    Column("decision", "integer", "of the exposure"),
    Column("assigned_at", "time", "when the unit was assigned; empty if that is not known"),
    Column("endpoint", "word", ""),
    Column("experiment", "word", ""),
    Column("variant", "word", "that was assigned"),
    Column("metric", "word", ""),
    Column("id", "text", "by which repeats are told"),
    Column("value", "number", "", "of the metric"),
    Column("at", "time", "when it arrived"),
    Column("happened_at", "time", "as the client says; empty if it says nothing"),
)
SHADOWS = (
    Column("decision", "integer", "of the exposure"),
    Column("assigned_at", "time", "when the unit was assigned; empty if that is not known"),
    Column("experiment", "word", ""),
    Column("variant", "word", "that got a copy of the request"),
    Column("at", "time", "when it had answered"),
    Column("total_us", "integer", "", "us"),
    Column("error", "word", "empty if there was none"),
    Column("prediction", "number", ""),
)
VOTES = (
    Column("experiment", "word", ""),
    Column("ordinal", "integer", "place in the order of the coins"),
    Column("decision", "integer", "of the exposure"),
    Column("at", "time", "when the unit was assigned"),
    Column("stage", "word", "of the release"),
    Column("variant", "word", ""),
    Column("arm", "integer", "0 the champion, then the challengers"),
    Column("complete", "flag", "0 while an earlier window of the unit is open: counts for the gateway's metrics only"),
    Column("odds", "json", "probability of each arm, given everything seen of the unit before"),
    Column("segments", "json", "values by segment"),
    Column("covariates", "json", "numbers known before the coin"),
)


def exposures(store: OpenStore, now: Moment, selected: Selection) -> Iterator[tuple[int, Row]]:
    """Rows of EXPOSURES with their times."""
    names = Names(now.segments)

    def rows(span: Span) -> Iterator[tuple[int, Row]]:
        for row in stored_exposures(store, span, now.watermark, selected.experiment):
            yield row[1], named_exposure(row, names)

    found = spans(store, selected.since, min(selected.until, now.watermark))
    return merged([(span.since, span) for span in found], rows)


def named_exposure(row: Row, names: Names) -> Row:
    """As it is stored, with readable segments and flags."""
    decision, at, endpoint, experiment, stage, variant, pi, unit, segments, covariates, revision, flags, *rest = row
    forced = int(bool(flags & FORCED))
    about = (decision, at, endpoint, experiment, stage, variant, pi, bytes(unit))
    return *about, names.segments(experiment, segments), covariates, revision, forced, *rest


def outcomes(store: OpenStore, now: Moment, selected: Selection) -> Iterator[tuple[int, Row]]:
    """Rows of OUTCOMES with the times of their exposures."""
    sql = (
        f"SELECT {OUTCOME} FROM outcome o {ASSIGNED.format('o')}"
        " WHERE (o.decision, o.metric, o.id) > (:key0, :key1, :key2) AND o.decision >= :key0 AND o.decision < :end"
        " AND o.at < :watermark{experiment} ORDER BY o.decision, o.metric, o.id LIMIT :most"
    )
    return _of_exposures(store, now, selected, sql, (0, 5, 6), "outcome")


def shadows(store: OpenStore, now: Moment, selected: Selection) -> Iterator[tuple[int, Row]]:
    """Rows of SHADOWS with the times of their exposures."""
    sql = (
        "SELECT s.decision, a.at, d.experiment, s.variant, s.at, s.total_us, s.error, s.prediction"
        f" FROM shadow s {ASSIGNED.format('s')}"
        " WHERE (s.decision, s.variant) > (:key0, :key1) AND s.decision >= :key0 AND s.decision < :end"
        " AND s.at < :watermark{experiment} ORDER BY s.decision, s.variant LIMIT :most"
    )
    return _of_exposures(store, now, selected, sql, (0, 3), "shadow")


def votes(store: OpenStore, now: Moment, selected: Selection) -> Iterator[tuple[int, Row]]:
    """Rows of VOTES with their times."""
    names = Names(now.segments)
    sql = (
        "SELECT experiment, ordinal, decision, at, stage, variant, arm, complete, odds, segments, covariates FROM vote"
        " WHERE experiment = :experiment AND ordinal > :key1 AND at < :until ORDER BY ordinal LIMIT :most"
    )

    def rows(experiment: str) -> Iterator[tuple[int, Row]]:
        until = min(selected.until, now.watermark)
        start = {"experiment": experiment, "key1": 0, "until": until, "most": CHUNK}
        for row in _chunks(store, sql, start, (0, 1)):
            if row[3] >= selected.since:
                yield row[3], (*row[:9], names.segments(experiment, row[9]), row[10])

    wanted = [selected.experiment] if selected.experiment else list(now.experiments)
    # A vote is not older than its experiment.
    return merged(sorted((now.started[name], name) for name in wanted), rows)


class Names:
    """Values of segments get their names, of every combination once."""

    def __init__(self, names: Mapping[str, tuple[str, ...]]) -> None:
        """`names` of an experiment's segments, in the order of the values in an assignment."""
        self._names = names
        self._known: dict[tuple[str, str], str] = {}

    def segments(self, experiment: str, values: str) -> str:
        """A JSON object from a JSON list; the names are numbers where no experiment says more."""
        known = self._known.get((experiment, values))
        if known is None:
            listed = json.loads(values)
            names = self._names.get(experiment, ())
            if len(names) != len(listed):
                names = tuple(map(str, range(len(listed))))
            known = self._known[experiment, values] = json.dumps(dict(zip(names, listed, strict=True)))
        return known


def stored_exposures(
    store: OpenStore, span: Span, watermark: int, experiment: str | None = None, most: int = CHUNK
) -> Iterator[Row]:
    """As they are stored: EXPOSURES, but with bare values of segments, and flags."""
    sql = (
        "SELECT a.decision, a.at, d.endpoint, d.experiment, d.stage, d.variant, d.pi, a.unit, d.segments, a.covariates,"
        " d.revision, d.flags, c.at, c.served, c.ended, c.status, c.first_byte_us, c.total_us, c.error, c.tries,"
        " c.prediction FROM assignment a JOIN draw d ON d.id = a.draw"
        f" LEFT JOIN completion c ON c.decision = a.decision{store.same_day('c', 'a.at')}"
        " AND c.at < :watermark WHERE a.decision > :key0 AND a.decision < :end{experiment}"
        " ORDER BY a.decision LIMIT :most"
    )
    start = {"key0": span.begin - 1, "end": span.end, "watermark": watermark, "most": most}
    return _chunks(store, *_about(sql, start, experiment), (0,))


def _of_exposures(
    store: OpenStore, now: Moment, selected: Selection, sql: str, key: Sequence[int], table: str
) -> Iterator[tuple[int, Row]]:
    """Facts about exposures, whose time is the second column."""

    def rows(span: Span) -> Iterator[tuple[int, Row]]:
        at = span.since
        start: dict[str, Any] = {f"key{place}": "" for place in range(1, len(key))}
        start |= {"key0": span.begin, "end": span.end, "watermark": now.watermark, "most": CHUNK}
        for row in _chunks(store, *_about(sql, start, selected.experiment), key):
            # Facts of an exposure that is not there are filed with their neighbours'.
            at = at if row[1] is None else row[1]
            yield at, row

    found = spans_of(store, table, selected.since, selected.until if selected.until < now.watermark else None)
    return merged([(span.since, span) for span in found], rows)


def _about(sql: str, parameters: dict[str, Any], experiment: str | None) -> tuple[str, dict[str, Any]]:
    if experiment is None:
        return sql.format(experiment=""), parameters
    return sql.format(experiment=" AND d.experiment = :experiment"), parameters | {"experiment": experiment}


def _chunks(store: OpenStore, sql: str, parameters: dict[str, Any], key: Sequence[int]) -> Iterator[Row]:
    """Rows behind a key; `key` are the places of its columns in a row. Between two chunks nothing is open."""
    parameters = dict(parameters)
    while rows := store.rows(sql, parameters):
        yield from rows
        if len(rows) < parameters["most"]:
            return
        parameters |= {f"key{place}": rows[-1][column] for place, column in enumerate(key)}
