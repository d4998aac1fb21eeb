"""What the control process knows, as metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gateway import __version__
from gateway.admin.views import splits_of
from gateway.evidence.report import OVERALL, WATCH
from gateway.plan import Plan
from gateway.release.controller import Controller
from gateway.release.guard import Guard
from gateway.release.intake import ReloadStatus
from gateway.release.membership import LIVING
from gateway.telemetry import metrics
from gateway.telemetry.exposition import Sample
from gateway.telemetry.status_page import PageReading, Series, Word

Totals = dict[Series, tuple[int, ...]]

_CHARTED = (OVERALL, WATCH)  # tests as metrics: those of segments are many, and in the status


def samples(controller: Controller, reload: ReloadStatus, now_us: int) -> Iterator[Sample]:
    """The control process's own metrics."""
    yield metrics.BUILD_INFO, (__version__,), 1
    yield from _workers(controller.health.living)
    yield metrics.PLAN_REVISION, (), controller.plan_revision
    for one in controller.health.preparations(controller.plan):
        labels = one.endpoint, one.variant
        yield metrics.PREPARING, (*labels, "loading"), one.workers - one.loaded - len(one.errors)
        yield metrics.PREPARING, (*labels, "failed"), len(one.errors)
    yield metrics.RELOAD_OK, (), float(not reload.problems)
    yield metrics.RELOAD_TIME, (), reload.accepted_at_us / 1e6
    yield metrics.CONFIG_INFO, (controller.loaded.digest,), 1
    yield metrics.STORE_UP, (), float(not controller.store_error)
    yield metrics.SPOOL_LAG, (), max(0.0, (now_us - controller.engine.seen_through) / 1e6)
    for kind, count in sorted(controller.engine.shipped.facts.items()):
        yield metrics.FACTS, (kind,), count
    yield metrics.SPOOL_DAMAGE, ("torn",), controller.engine.shipped.torn
    yield metrics.SPOOL_DAMAGE, ("quarantined",), len(controller.engine.shipped.quarantined)
    yield from _chain_samples(controller)
    splits = splits_of(controller)
    for name in controller.loaded.config.endpoints:
        for variant, share in splits.get(name, {}).items():
            yield metrics.SPLIT, (name, variant), share
        if controller.states[name].experiment:
            yield from _experiment_samples(controller, name)


def waiting(guard: Guard) -> Iterator[Sample]:
    """Of a node that has no store yet."""
    yield metrics.BUILD_INFO, (__version__,), 1
    yield from _workers(guard.health.living)
    yield metrics.STORE_UP, (), 0.0
    yield metrics.HALTS, (), len(guard.halts.all)


def _workers(living: Sequence[PageReading]) -> Iterator[Sample]:
    yield metrics.WORKERS, (), len(living)
    for page in living:
        yield metrics.WORKER_PLAN, (str(page.word(Word.SPOOL)),), page.word(Word.PLAN_REVISION)
    yield metrics.IN_FLIGHT, (), sum(page.word(Word.IN_FLIGHT) for page in living)


def _chain_samples(controller: Controller) -> Iterator[Sample]:
    chain = controller.chain
    for metric, histogram in (
        (metrics.SHIP_DELAY, chain.shipped),
        (metrics.DECIDE_DELAY, chain.decided),
        (metrics.TAKE_DELAY, chain.taken),
        (metrics.FOLLOW_DELAY, chain.followed),
    ):
        yield metric, (), tuple(histogram.slots)
    yield metrics.HALTS, (), len(controller.halts.all)
    yield metrics.LEADS, (), float(controller.engine.leading)
    nodes = controller.membership.nodes
    if nodes:
        living = sum(node.silent < LIVING for node in nodes)
        yield metrics.NODES, ("living",), living
        yield metrics.NODES, ("silent",), len(nodes) - living
        disagreement = controller.membership.disagreement(controller.loaded.common)
        yield metrics.CONFIG_DIFFERS, (), float(bool(disagreement))
        yield metrics.CLOCK_AHEAD, (), controller.membership.clock_ahead


def _experiment_samples(controller: Controller, name: str) -> Iterator[Sample]:
    state = controller.states[name]
    yield metrics.STAGE, (name, state.experiment, f"{state.status}:{state.stage}"), 1
    yield metrics.HOLD, (state.experiment,), float(bool(state.hold))
    run = controller.run(state.experiment)
    for kind, count in sorted(run.decisions.items()):
        yield metrics.DECISIONS, (state.experiment, kind), count
    for lag in run.lags:
        about = state.experiment, lag.metric, lag.variant
        yield metrics.OUTCOME_LAG, about, lag.median_seconds
        yield metrics.OUTCOME_LAG_ALARM, about, float(lag.differs)
    report = run.report
    if report is None:
        return
    for test in report.tests:
        if test.segment in _CHARTED:
            name_of_test = test.name if test.segment == OVERALL else WATCH
            yield metrics.LOG_EVIDENCE, (state.experiment, test.challenger, test.metric, name_of_test), test.log_e
    for estimate in report.estimates:
        if estimate.method == "exact":  # a mean beside the score is information for people
            labels = state.experiment, estimate.challenger, estimate.metric, estimate.segment
            for bound in ("lower", "estimate", "upper"):
                yield metrics.EFFECT, (*labels, bound), getattr(estimate, bound)
    arms = controller.engine.evidence[state.experiment].definition.arms
    for variant, units in zip(arms, report.assigned, strict=True):
        yield metrics.UNITS, (state.experiment, variant), units


def told_of_upstreams(totals: Totals, plan: Plan | None) -> Totals:
    """Without those that no variant of the plan has any more: a page keeps its series to the end, and a replica that is
    not available is something to be alarmed by."""
    name = metrics.UPSTREAM_AVAILABLE.name
    named = {
        (endpoint.name, variant.name, url)
        for endpoint in (plan.endpoints if plan else ())
        for variant in endpoint.variants
        for url in variant.urls
    }
    return {series: values for series, values in totals.items() if series[0] != name or series[1] in named}
