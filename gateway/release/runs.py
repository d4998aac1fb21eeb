"""What the controller remembers of an experiment between two ticks; a restart may forget all of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from gateway.evidence.engine import AnyEngine
from gateway.evidence.lags import VariantLag, lags
from gateway.evidence.report import Report, Thresholds
from gateway.evidence.verdict import judge
from gateway.release.health import Health
from gateway.release.kill import KillRules
from gateway.release.state import Decision, ReleaseState
from gateway.store.base import LedgerRow, Store

PAUSE = 1.0  # seconds after which a release is looked at although nothing has changed but the time
_EVERYTHING = 1 << 62  # rows of a ledger
_Said = tuple[str, str]  # reason and variant


@dataclass(slots=True)
class Run:
    """One experiment."""

    report: Report | None = None
    judged: tuple[tuple[int, ...], str] = ((), "")  # progress of the fold, and config, of the report
    counted: int = -1  # fold step of the counters
    decision: Decision | None = None
    counters: Mapping[tuple[str, str], int] = field(default_factory=dict)
    lags: list[VariantLag] = field(default_factory=list)
    decisions: Mapping[str, int] = field(default_factory=dict)  # rows of the ledger by kind
    last: LedgerRow | None = None  # the newest row of the ledger that is about this experiment
    _news: object = None  # at the last look
    _look_at: float = 0.0
    _ledger_read: bool = False
    _kills: KillRules = field(default_factory=KillRules)
    _promotable_since: int = 0
    _said: set[_Said] | None = None  # what a trial of equals has in the ledger already; None before it was read

    def due(self, news: object, now: float) -> bool:
        """Whether to look again: there is news, a promotion waits, or it is time (monotonic seconds).

        Hundreds of releases in which nothing happens must not keep a core busy ten times a second.
        """
        waits = self.decision is not None and self.decision.reason == "promotion_waits"
        if news == self._news and not waits and now < self._look_at:
            return False
        self._news, self._look_at = news, now + PAUSE
        return True

    def look(self, experiment: str, engine: AnyEngine, thresholds: Thresholds, config: str, store: Store) -> Report:
        """The report of what is folded; made anew only if there is more, or another config."""
        basis = engine.progress(experiment), config
        if self.report is None or self.judged != basis:
            units, folded = engine.units(experiment), engine.folded(experiment)
            self.report = judge(engine.evidence[experiment], thresholds, units, folded)
            self.judged = basis
        if self.counted != engine.step_number:
            self.counters = store.counters(experiment)
            self.lags = lags(store.lags(experiment), engine.evidence[experiment].definition.arms)
            self.counted = engine.step_number
        if not self._ledger_read:
            self.decisions = store.decisions_by_kind(experiment)
            self.last = next(iter(store.ledger(1, experiment)), None)
            self._ledger_read = True
        return self.report

    def ledger_has_grown(self) -> None:
        self._ledger_read = False

    def store_came_back(self) -> None:
        """Nobody knows whether what failed is in the store."""
        self._said = None
        self._news = None
        self.judged, self.counted = ((), ""), -1
        self.ledger_has_grown()

    def kills(self, health: Health, state: ReleaseState) -> dict[str, str]:
        """By challenger in the running: why the kill rule stops it."""
        return self._kills.look(*health.compared(state.endpoint, state.experiment, state.champion, state.contenders))

    def ripened(self, decision: Decision, seen_through: int, now_us: int) -> Decision:
        """Promotion waits until every living spool is folded past the moment of the verdict (rule R3)."""
        if decision.kind != "promote":
            self._promotable_since = 0
            return decision
        self._promotable_since = self._promotable_since or now_us
        if seen_through >= self._promotable_since:
            return decision
        return replace(decision, kind="continue", reason="promotion_waits")

    def unsaid(self, decisions: Iterable[Decision], experiment: str, store: Store) -> list[Decision]:
        """Those that are not in the ledger yet: each is written down once, also across restarts."""
        if self._said is None:
            rows = store.ledger(_EVERYTHING, experiment)
            self._said = {(row.body["reason"], row.body.get("variant", "")) for row in rows}
        return [decision for decision in decisions if (decision.reason, decision.variant) not in self._said]

    def say(self, decisions: Iterable[Decision]) -> None:
        """They are in the ledger now."""
        said = self._said if self._said is not None else set()
        self._said = said | {(decision.reason, decision.variant) for decision in decisions}
