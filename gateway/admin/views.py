"""What the control process knows, as plain data: one snapshot for the API, the CLI, the demo and `/metrics`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from gateway import __version__
from gateway.evidence.report import OVERALL, WATCH
from gateway.plan import Plan
from gateway.release.controller import Controller
from gateway.release.intake import ReloadStatus
from gateway.release.membership import LIVING, Membership
from gateway.release.policy import permitted
from gateway.release.state import Decision, ReleaseState, shares_of
from gateway.release.view import Rules
from gateway.store.base import LedgerRow
from gateway.store.cluster import Node
from gateway.telemetry import metrics
from gateway.telemetry.exposition import Sample
from gateway.telemetry.status_page import PageReading, Series, Word

Totals = dict[Series, tuple[int, ...]]

_CHARTED = (OVERALL, WATCH)  # tests as metrics: those of segments are many, and in the status


def waiting(error: str, pages: list[PageReading]) -> dict[str, Any]:
    """The state of a node that has no store yet: what its workers say."""
    none = {"problems": [], "needs_restart": [], "changed_models": [], "reading_models": False}
    return {
        "version": __version__,
        "config": {"path": "", "digest": "", "ok": True, "accepted_at_us": 0, **none},
        "plan_revision": max((page.word(Word.PLAN_REVISION) for page in pages), default=0),
        "workers": _workers(pages),
        "store": {"ok": False, "error": error},
        "node": 0,
        "nodes": [],
        "halts": [],
        "step": 0,
        "lag_seconds": None,
        "endpoints": {},
    }


def status(controller: Controller, reload: ReloadStatus, now_us: int) -> dict[str, Any]:
    """The whole state of the node, JSON-ready."""
    return {
        "version": __version__,
        "config": {
            "path": str(controller.loaded.path),
            "digest": controller.loaded.digest,
            "ok": not reload.problems,
            "problems": reload.problems,
            "needs_restart": reload.needs_restart,
            "changed_models": [str(path) for path in reload.changed_models],
            "reading_models": reload.reading_models,
            "accepted_at_us": reload.accepted_at_us,
        },
        "plan_revision": controller.plan_revision,
        "workers": _workers(controller.health.living),
        "store": {"ok": not controller.store_error, "error": controller.store_error},
        "node": controller.membership.number,
        "nodes": [_node(node, controller.membership) for node in controller.membership.nodes],
        "halts": [msgspec.to_builtins(halt) for halt in controller.halts.all],
        "step": controller.engine.step_number,
        "lag_seconds": max(0.0, (now_us - controller.engine.seen_through) / 1e6),
        "endpoints": _endpoints(controller, now_us),
    }


def _workers(pages: list[PageReading]) -> list[dict[str, Any]]:
    return [
        {
            "spool": page.word(Word.SPOOL),
            "pid": page.word(Word.PID),
            "plan_revision": page.word(Word.PLAN_REVISION),
            "plan_refused": page.word(Word.PLAN_REFUSED),
            "draining": bool(page.word(Word.DRAINING)),
        }
        for page in pages
    ]


def _node(node: Node, membership: Membership) -> dict[str, Any]:
    """One of several nodes on a shared store."""
    return {
        "number": node.number,
        "name": node.name,
        "leads": node.number == membership.holder,
        "config_digest": node.config_digest,
        "plan_revision": node.plan_revision,
        "trouble": node.trouble,
        "silent_seconds": node.silent,
    }


def _endpoints(controller: Controller, now_us: int) -> dict[str, dict[str, Any]]:
    splits = _splits(controller)
    preparing: dict[str, list[dict[str, Any]]] = {}
    for one in controller.health.preparations(controller.plan):
        told = {"variant": one.variant, "loaded": one.loaded, "workers": one.workers, "errors": list(one.errors)}
        preparing.setdefault(one.endpoint, []).append(told)
    views: dict[str, dict[str, Any]] = {}
    for name in controller.loaded.config.endpoints:
        state = controller.states[name]
        view = views[name] = {
            "status": state.status,
            "champion": state.champion,
            "split": splits.get(name, {}),
            "preparing": preparing.get(name, []),
        }
        if state.experiment:
            view["experiment"] = _experiment(controller, name, now_us)
    return views


def _splits(controller: Controller) -> dict[str, dict[str, float]]:
    """As workers serve them, which may be less than what was decided, or nothing yet: models are loaded first."""
    endpoints = controller.plan.endpoints if controller.plan is not None else ()
    return {endpoint.name: shares_of(endpoint.slots) for endpoint in endpoints}


def _experiment(controller: Controller, name: str, now_us: int) -> dict[str, Any]:
    state = controller.states[name]
    run = controller.run(state.experiment)
    rules = controller.rules(name)
    definition = controller.engine.evidence[state.experiment].definition
    return {
        "id": state.experiment,
        "champion": definition.champion,
        "challenger": state.challenger,
        "challengers": list(definition.challengers),
        "running": list(state.contenders) if state.status == "running" else [],
        "objective": definition.objective,
        "aa": definition.aa,
        "holdback": definition.holdback,
        "cycle_seconds": definition.cycle_us / 1e6,
        "stage": state.stage,
        "stages": [{"name": rule.name, "share": float(rule.share)} for rule in rules.stages],
        "automation": rules.automation,
        "hold": state.hold,
        "running_seconds": (now_us - state.started_at_us) / 1e6,
        "max_duration_seconds": rules.max_duration_us / 1e6,
        "max_units": rules.max_units,
        "watch": _watch(state, rules, now_us),
        "kept": [msgspec.to_builtins(one) for one in state.kept],
        "next": _next(run.decision, rules) if run.decision and state.open else None,
        "last": _last(run.last) if run.last else None,
        "report": msgspec.to_builtins(run.report) if run.report else None,
        "lags": [one._asdict() for one in run.lags],
        "counters": [
            {"variant": variant, "name": counter, "value": value}
            for (variant, counter), value in sorted(run.counters.items())
        ],
    }


def _watch(state: ReleaseState, rules: Rules, now_us: int) -> dict[str, Any] | None:
    """The new champion against the holdback of the old one."""
    if not state.watching:
        return None
    left = rules.watch_us - (now_us - state.watch_since_us)
    return {"former": state.former, "share": float(state.stage_share), "seconds_left": max(0.0, left / 1e6)}


def _last(row: LedgerRow) -> dict[str, Any]:
    """The newest decision, with who made it and why."""
    return {"at": row.at, "kind": row.kind, **{name: row.body[name] for name in ("actor", "reason", "text")}}


def _next(decision: Decision, rules: Rules) -> dict[str, Any]:
    """What the policy says now; `recommended` where the gateway would not do it by itself."""
    acts = permitted("full", decision) and not permitted(rules.automation, decision)
    return {**msgspec.to_builtins(decision), "recommended": acts}


def samples(controller: Controller, reload: ReloadStatus, now_us: int) -> Iterator[Sample]:
    """The control process's own metrics."""
    yield metrics.BUILD_INFO, (__version__,), 1
    yield metrics.WORKERS, (), len(controller.health.living)
    for page in controller.health.living:
        yield metrics.WORKER_PLAN, (str(page.word(Word.SPOOL)),), page.word(Word.PLAN_REVISION)
    yield metrics.IN_FLIGHT, (), sum(page.word(Word.IN_FLIGHT) for page in controller.health.living)
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
    splits = _splits(controller)
    for name in controller.loaded.config.endpoints:
        for variant, share in splits.get(name, {}).items():
            yield metrics.SPLIT, (name, variant), share
        if controller.states[name].experiment:
            yield from _experiment_samples(controller, name)


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
