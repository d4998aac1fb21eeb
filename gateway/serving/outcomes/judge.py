"""One posted outcome becomes a fact, or is refused: token or key, metric, bounds, time."""

from __future__ import annotations

from gateway.assignment.hashing import bucket, unit_digest
from gateway.assignment.token import Token
from gateway.errors import RequestError, ValueRejected
from gateway.events import Outcome, Rejection, UnitOutcome
from gateway.plan import MetricPlan
from gateway.serving.answers.values import checked, finite
from gateway.serving.inference import ONE_REQUEST
from gateway.serving.outcomes.callers import Allowance, Caller
from gateway.serving.outcomes.moments import happened
from gateway.serving.outcomes.posted import Posted
from gateway.serving.tables.table import Endpoint, Table

Counted = tuple[str, str, str]  # labels of the counter: endpoint, metric, result


class Refused(Exception):
    """An outcome that cannot be taken, though its endpoint is known: refused to the client, and counted. If it came
    with an authentic token it is kept as a fact of its variant."""

    def __init__(self, error: RequestError, counted: Counted, fact: Rejection | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.counted = counted
        self.fact = fact


class Judge:
    """Judges the outcomes of one request, by one table."""

    __slots__ = ("_allowance", "_caller", "_table")

    def __init__(self, table: Table, caller: Caller, allowance: Allowance) -> None:
        self._table = table
        self._caller = caller
        self._allowance = allowance

    def accept(self, posted: Posted, now: int) -> tuple[Outcome | UnitOutcome, Counted]:
        """The fact, as of `now` (microseconds); raises Refused or RequestError."""
        return self._of_unit(posted, now) if posted.unit else self._of_decision(posted, now)

    def _of_decision(self, posted: Posted, now: int) -> tuple[Outcome, Counted]:
        token = self._table.signer.verify(posted.decision)
        self._allowance.take(token.decision)
        about = token.decision, token.endpoint, token.experiment
        metric: MetricPlan | None = None
        try:
            metric = self._metric(token, posted.metric)
            value = finite(posted.metric, posted.value) if metric is None else checked(metric, posted.value)
            happened_at = happened(posted.at, now, token.assigned_at)
        except ValueRejected as error:
            counted = token.endpoint, metric.name if metric else "", error.reason
            raise Refused(error, counted, Rejection(now, *about, error.reason)) from error
        outcome = Outcome(posted.id, now, *about, posted.metric, value, token.assigned_at, happened_at)
        return outcome, (token.endpoint, metric.name if metric else "", "accepted")

    def _of_unit(self, posted: Posted, now: int) -> tuple[UnitOutcome, Counted]:
        self._caller.must_hold_a_key()
        endpoint = self._table.endpoints.get(posted.endpoint)
        if endpoint is None:
            known = sorted(self._table.endpoints)[:20]
            raise ValueRejected(f"unknown endpoint {posted.endpoint!r}; endpoints are {known}")
        metric: MetricPlan | None = None
        try:
            unit = _unit(endpoint, posted.unit)
            metric = _posted_metric(endpoint, posted.metric)
            value = checked(metric, posted.value)
            happened_at = happened(posted.at, now)
        except ValueRejected as error:
            raise Refused(error, (endpoint.plan.name, metric.name if metric else "", error.reason)) from error
        point = bucket(endpoint.key, unit)
        self._allowance.take(~point)  # below zero, as no decision is
        plan, pseudonym = endpoint.plan, unit_digest(self._table.pepper, unit)
        about = plan.name, plan.experiment, point, pseudonym
        outcome = UnitOutcome(posted.id, now, *about, posted.metric, value, happened_at)
        return outcome, (plan.name, metric.name, "accepted")

    def _metric(self, token: Token, name: str) -> MetricPlan | None:
        """The metric's definition, or None when the token's experiment is no longer in the plan.

        Then the outcome is kept all the same: the control process knows past experiments and checks the bounds.
        """
        endpoint = self._table.endpoints.get(token.endpoint)
        if endpoint is None or endpoint.plan.experiment != token.experiment:
            return None
        return _posted_metric(endpoint, name)


def _posted_metric(endpoint: Endpoint, name: str) -> MetricPlan:
    metric = endpoint.metrics.get(name)
    if metric is None or not _is_posted(metric):
        known = sorted(known.name for known in endpoint.metrics.values() if _is_posted(known))
        raise ValueRejected(f"unknown metric {name!r}; outcomes of {endpoint.plan.name} are {known}")
    return metric


def _is_posted(metric: MetricPlan) -> bool:
    """Of a ratio the two parts are posted, each under its own name; of a score the label."""
    return metric.source == "outcome" and metric.type not in ("ratio", "latency")


def _unit(endpoint: Endpoint, unit: str) -> bytes:
    """The unit as its requests had it; raises ValueRejected if no request of the endpoint can have had it."""
    if not endpoint.plan.experiment:
        raise ValueRejected(f"{endpoint.plan.name} has no experiment that the outcome could count in")
    raw = unit.encode()
    if not endpoint.unit_header or raw.startswith(ONE_REQUEST):
        raise ValueRejected(
            f"units of {endpoint.plan.name} that are single requests have no name; post their decision tokens"
        )
    return raw
