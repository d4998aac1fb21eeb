"""What the control process knows, as plain data: one snapshot for the API, the CLI and the demo."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from gateway import __version__
from gateway.release.controller import Controller
from gateway.release.halts import Halt
from gateway.release.intake import ReloadStatus
from gateway.release.membership import Membership
from gateway.release.policy import permitted
from gateway.release.state import Decision, ReleaseState, shares_of
from gateway.release.view import Rules
from gateway.store.base import LedgerRow
from gateway.store.cluster import Node
from gateway.telemetry.status_page import PageReading, Word


def waiting(error: str, pages: Sequence[PageReading] = (), halts: Collection[Halt] = ()) -> dict[str, Any]:
    """The state of a node that has no store yet: what its workers say, and what was stopped."""
    none = {"problems": [], "needs_restart": [], "changed_models": [], "reading_models": False}
    return {
        "version": __version__,
        "config": {"path": "", "digest": "", "ok": True, "accepted_at_us": 0, **none},
        "plan_revision": max((page.word(Word.PLAN_REVISION) for page in pages), default=0),
        "workers": _workers(pages),
        "store": {"ok": False, "error": error},
        "node": 0,
        "nodes": [],
        "trouble": "",
        "disagreement": "",
        "clock_ahead_seconds": 0.0,
        "halts": [msgspec.to_builtins(halt) for halt in halts],
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
        "trouble": controller.trouble,
        "disagreement": controller.membership.disagreement(controller.loaded.common),
        "clock_ahead_seconds": controller.membership.clock_ahead,
        "halts": [msgspec.to_builtins(halt) for halt in controller.halts.all],
        "step": controller.engine.step_number,
        "lag_seconds": max(0.0, (now_us - controller.engine.seen_through) / 1e6),
        "endpoints": _endpoints(controller, now_us),
    }


def _workers(pages: Sequence[PageReading]) -> list[dict[str, Any]]:
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
    splits = splits_of(controller)
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


def splits_of(controller: Controller) -> dict[str, dict[str, float]]:
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
        "window_seconds": {metric.name: metric.window_us / 1e6 for metric in definition.metrics if metric.window_us},
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
