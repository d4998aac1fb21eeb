"""`gateway rollback --local`: a node's challengers get nothing more, whatever else is away.

As soon as the control process and the store are back it becomes a rollback on every node, in the ledger.
"""

from __future__ import annotations

import time
from pathlib import Path

from gateway import plan as plans
from gateway.cli.client import data_dir_of
from gateway.errors import GatewayError, UnknownEndpoint
from gateway.plan import EndpointPlan, Plan
from gateway.release.guard import write_without
from gateway.release.halts import FOLDER, Halt, write
from gateway.release.sparing import halted

PATIENCE = 2.0  # seconds for a control process that lives to do it


class LocalError(GatewayError):
    """The node has nothing that could be stopped, or its files cannot be written."""

    reason = "local"


def roll_back(config: Path, endpoint: str, actor: str, reason: str) -> str:
    """Stop the challengers of one endpoint on this node; returns what was done, in words."""
    data_dir = data_dir_of(config)
    halt = _halt(_plan(data_dir), endpoint, actor, reason)
    try:
        write(data_dir / FOLDER, halt)
    except OSError as error:
        raise LocalError(f"{data_dir / FOLDER}: {error.strerror}") from error
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        plan = _plan(data_dir)
        if _endpoint(halted(plan, [halt]), endpoint).slots == _endpoint(plan, endpoint).slots:
            return f"{endpoint}: all traffic of this node goes to {_endpoint(plan, endpoint).champion.name}"
        time.sleep(0.05)
    try:
        plan = write_without(data_dir, _plan(data_dir), [halt])
    except OSError as error:
        raise LocalError(f"{data_dir / 'plan.json'}: {error.strerror}") from error
    return (
        f"{endpoint}: all traffic of this node goes to {_endpoint(plan, endpoint).champion.name};"
        " the control process did not answer, so the plan was written without it"
    )


def _halt(plan: Plan, endpoint: str, actor: str, reason: str) -> Halt:
    experiment = _endpoint(plan, endpoint).experiment
    if not experiment:
        raise LocalError(f"{endpoint} has no experiment: change its traffic in the config")
    return Halt(
        endpoint=endpoint,
        experiment=experiment,
        variant="",
        reason="manual",
        text=reason or f"asked for by {actor}",
        actor=actor,
        at=time.time_ns() // 1000,
    )


def _endpoint(plan: Plan, name: str) -> EndpointPlan:
    for endpoint in plan.endpoints:
        if endpoint.name == name:
            return endpoint
    raise UnknownEndpoint(f"this node serves no {name!r}")


def _plan(data_dir: Path) -> Plan:
    path = data_dir / "plan.json"
    try:
        return plans.decode(path.read_bytes())
    except OSError as error:
        raise LocalError(f"{path}: {error.strerror}: nothing was ever served from here") from error
