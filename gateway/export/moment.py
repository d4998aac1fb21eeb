"""One moment of a store: the fold step that everything is of, and what changes from step to step.

Facts are append-only, and everything older than a step's watermark is there when the step is. So whatever is read
later, in many short queries, is that of the moment, as long as it is older than the watermark; no transaction is held
open meanwhile, which would keep the store's log from being cut back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from gateway.evidence.cells import Evidence
from gateway.evidence.definition import Definition, decode
from gateway.evidence.report import Report, Thresholds
from gateway.evidence.verdict import judge
from gateway.export.columns import Row
from gateway.export.source import OpenStore

_LOOK_BACK = 20  # rows of the ledger: those of people rest on no evidence
# As a config has them that says nothing else.
THRESHOLDS = Thresholds(alpha=0.01, alpha_rollback=0.01, alpha_errors=0.001, alpha_guardrail=0.05, alpha_srm=0.001)


@dataclass(slots=True)
class Moment:
    """Taken in one transaction."""

    step: int = 0
    watermark: int = 0  # facts of before are complete
    experiments: dict[str, Definition] = field(default_factory=dict)  # in the order of their starts
    started: dict[str, int] = field(default_factory=dict)
    evidence: dict[str, Evidence] = field(default_factory=dict)
    units: dict[str, int] = field(default_factory=dict)  # votes admitted
    folded: dict[str, int] = field(default_factory=dict)  # votes that every metric has folded
    last_decision: int = 0
    ledger_head: str = ""  # hash of the ledger's last row
    last_revision: int = 0
    counters: list[Row] = field(default_factory=list)
    lags: list[Row] = field(default_factory=list)
    thresholds: dict[str, Thresholds] = field(default_factory=dict)  # as the last decision about each had them

    @property
    def segments(self) -> dict[str, tuple[str, ...]]:
        """Names of segments by experiment."""
        return {id: definition.segments for id, definition in self.experiments.items()}

    def report(self, experiment: str) -> Report:
        """What was known of an experiment whose evidence was wanted."""
        evidence, thresholds = self.evidence[experiment], self.thresholds.get(experiment, THRESHOLDS)
        return judge(evidence, thresholds, self.units[experiment], self.folded[experiment])


def moment(store: OpenStore, *, evidence_of: Iterable[str] | None = None) -> Moment:
    """The present moment; `evidence_of` names the experiments whose evidence is wanted, by default all."""
    with store.transaction():
        found = Moment()
        last = store.last_step()
        if last is not None:
            found.step, found.watermark = last.step, last.watermark
        for id, _, text, at in store.rows("SELECT id, endpoint, definition, started_at FROM experiment ORDER BY 4, 1"):
            found.experiments[id], found.started[id] = decode(text), at
        wanted = found.experiments.keys() if evidence_of is None else found.experiments.keys() & set(evidence_of)
        for id in wanted:
            definition, cursors = found.experiments[id], store.cursors(id)
            found.evidence[id] = Evidence.restore(definition, store.evidence(id))
            found.units[id] = store.vote_count(id)
            found.folded[id] = min((cursors.get(metric.name, 0) for metric in definition.metrics), default=0)
            if (thresholds := _thresholds(store, id)) is not None:
                found.thresholds[id] = thresholds
        found.last_decision, found.ledger_head = store.row("SELECT id, hash FROM ledger ORDER BY id DESC LIMIT 1") or (
            0,
            "",
        )
        plan = store.last_plan()
        found.last_revision = plan.revision if plan else 0
        found.counters = store.rows(
            "SELECT experiment, variant, name, CAST(sum(value) AS BIGINT) FROM counter"
            " GROUP BY experiment, variant, name ORDER BY experiment, variant, name"
        )
        found.lags = store.rows(
            "SELECT experiment, variant, metric, bucket, CAST(sum(outcomes) AS BIGINT) FROM lag"
            " GROUP BY experiment, variant, metric, bucket ORDER BY experiment, variant, metric, bucket"
        )
    return found


def _thresholds(store: OpenStore, experiment: str) -> Thresholds | None:
    """What the last decision was measured by; None if there was none yet, or if its row does not say."""
    for row in reversed(store.ledger(_LOOK_BACK, experiment)):
        told = (row.body.get("evidence") or {}).get("thresholds")
        if told:
            return msgspec.convert(told, Thresholds)
    return None
