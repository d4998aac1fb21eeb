"""The tables that people read beside the ledger: effects and their evidence, and what the log says of itself."""

from __future__ import annotations

import json
from collections.abc import Iterator

from gateway.evidence.definition import encode
from gateway.evidence.report import Report
from gateway.export.columns import Column, Row
from gateway.export.facts import Selection
from gateway.export.moment import Moment
from gateway.export.source import OpenStore

_CHUNK = 1_000  # rows in memory

RESULTS = (
    Column("experiment", "word", ""),
    Column("challenger", "word", ""),
    Column("metric", "word", ""),
    Column("segment", "word", "empty for everybody"),
    Column("method", "word", "exact, or asymptotic for the mean of an unbounded metric or of a ratio"),
    Column("champion_units", "integer", ""),
    Column("challenger_units", "integer", ""),
    Column("lower", "number", "of the 95 % interval, which holds whenever one looks", "of the metric"),
    Column("estimate", "number", "the effect: challenger minus champion", "of the metric"),
    Column("upper", "number", "of the interval", "of the metric"),
    Column("increase", "flag", "whether more is better"),
    Column("better", "flag", "the whole interval lies on the better side"),
    Column("worse", "flag", "the whole interval lies on the worse side"),
)
TESTS = (
    Column("experiment", "word", ""),
    Column("challenger", "word", "empty where it is about the whole experiment"),
    Column("metric", "word", ""),
    Column("segment", "word", "empty for everybody"),
    Column("name", "word", "the hypothesis"),
    Column("log_e", "number", "the evidence that decides", "nats"),
    Column("needed", "number", "the evidence that is enough", "nats"),
    Column("now", "number", "the present evidence", "nats"),
    Column("met", "flag", "whether there is enough"),
)
EXPERIMENTS = (
    Column("id", "word", ""),
    Column("endpoint", "word", ""),
    Column("champion", "word", ""),
    Column("challengers", "json", "names"),
    Column("objective", "word", "the metric that must win"),
    Column("started_at", "time", ""),
    Column("units", "integer", "votes admitted"),
    Column("folded", "integer", "votes that every metric has folded"),
    Column("verdict", "word", "of the evidence: better, worse, equivalent, undecided or invalid"),
    Column("definition", "json", "everything that the statistics use, frozen at the start"),
)
PLANS = (
    Column("revision", "integer", ""),
    Column("at", "time", "when it was published"),
    Column("as_of", "integer", "the fold step on which it rests"),
    Column("config_digest", "word", ""),
    Column("shares", "json", "by endpoint and variant, in parts of 2^64"),
    Column("slots", "json", "by endpoint: from where in the hash space on which variant is given"),
)
STEPS = (
    Column("step", "integer", ""),
    Column("at", "time", ""),
    Column("watermark", "time", "facts of before were complete"),
    Column("positions", "json", "of the spool streams that moved"),
    Column("cursors", "json", "how far each metric of each experiment folded"),
)
COUNTERS = (
    Column("experiment", "word", ""),
    Column("variant", "word", "empty where it was not known"),
    Column("name", "word", "late, duplicate, conflict, rejected, unmatched …: facts that reach no verdict"),
    Column("value", "integer", ""),
)
LAGS = (
    Column("experiment", "word", ""),
    Column("variant", "word", "empty where it was not known"),
    Column("metric", "word", ""),
    Column("bucket", "integer", "outcomes that came 2^(bucket-1) to 2^bucket milliseconds after their exposure"),
    Column("outcomes", "integer", ""),
)
LATE = (
    Column("decision", "integer", "0 where the fact has none"),
    Column("kind", "word", "of the fact"),
    Column("at", "time", ""),
    Column("body", "json", "the fact, as its worker wrote it"),
)


def results(now: Moment, selected: Selection) -> Iterator[tuple[int, Row]]:
    """Rows of RESULTS."""
    for name in _wanted(now, selected):
        for row in result_rows(now.report(name)):
            yield 0, row


def result_rows(report: Report) -> Iterator[Row]:
    """Rows of RESULTS, of one experiment."""
    for one in report.estimates:
        about = (report.experiment, one.challenger, one.metric, one.segment, one.method, *one.units)
        yield *about, one.lower, one.estimate, one.upper, int(one.increase), int(one.better), int(one.worse)


def tests(now: Moment, selected: Selection) -> Iterator[tuple[int, Row]]:
    """Rows of TESTS."""
    for name in _wanted(now, selected):
        for one in now.report(name).tests:
            about = (name, one.challenger, one.metric, one.segment, one.name)
            yield 0, (*about, one.log_e, one.needed, one.now, int(one.met))


def experiments(now: Moment, selected: Selection) -> Iterator[tuple[int, Row]]:
    """Rows of EXPERIMENTS, in the order of their starts."""
    for name in _wanted(now, selected):
        one = now.experiments[name]
        about = (name, one.endpoint, one.champion, json.dumps(one.challengers), one.objective, now.started[name])
        verdict = now.report(name).verdict
        yield now.started[name], (*about, now.units[name], now.folded[name], verdict, encode(one))


def plans(store: OpenStore, now: Moment, selected: Selection) -> Iterator[tuple[int, Row]]:
    """Rows of PLANS with their times."""
    sql = (
        "SELECT revision, at, as_of, config_digest, shares, slots FROM plan WHERE revision > ? AND revision <= ?"
        " ORDER BY revision LIMIT ?"
    )
    return _numbered(store, sql, now.last_revision, selected)


def steps(store: OpenStore, now: Moment, selected: Selection) -> Iterator[tuple[int, Row]]:
    """Rows of STEPS with their times."""
    sql = (
        "SELECT step, at, watermark, positions, cursors FROM fold_step WHERE step > ? AND step <= ?"
        " ORDER BY step LIMIT ?"
    )
    return _numbered(store, sql, now.step, selected)


def counters(now: Moment, selected: Selection) -> Iterator[tuple[int, Row]]:
    return ((0, row) for row in now.counters if row[0] == (selected.experiment or row[0]))


def lags(now: Moment, selected: Selection) -> Iterator[tuple[int, Row]]:
    return ((0, row) for row in now.lags if row[0] == (selected.experiment or row[0]))


def late(store: OpenStore, selected: Selection) -> Iterator[tuple[int, Row]]:
    """Rows of LATE, of all experiments. There are few, and they have no key to go on from."""
    with store.transaction():
        for row in store.stream(
            "SELECT decision, kind, at, body FROM late_fact WHERE at >= ? AND at < ? ORDER BY at, decision, kind, body",
            (selected.since, selected.until),
        ):
            yield row[2], tuple(row)


def _wanted(now: Moment, selected: Selection) -> list[str]:
    return [selected.experiment] if selected.experiment else list(now.experiments)


def _numbered(store: OpenStore, sql: str, last: int, selected: Selection) -> Iterator[tuple[int, Row]]:
    """Rows that begin with a number, which goes up to `last`, and their time."""
    after = -1
    while rows := store.rows(sql, (after, last, _CHUNK)):
        for row in rows:
            if selected.since <= row[1] < selected.until:
                yield row[1], tuple(row)
        after = rows[-1][0]
