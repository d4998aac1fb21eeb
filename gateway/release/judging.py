"""What releases do by themselves: in each round the evidence of each is judged, and the policy's move is made.

The kill rule and crashing models need no statistics, and no store to be seen, so every node acts on them; all other
moves are the leader's.
"""

from __future__ import annotations

import msgspec

from gateway.clock import Clock
from gateway.release.policy import decide, permitted
from gateway.release.releases import Releases
from gateway.release.sparing import crashing
from gateway.release.state import Decision
from gateway.release.view import View

WITHOUT_STATISTICS = frozenset({"kill_rule", "crashes"})  # reasons that every node acts on


class Judge:
    """Looks at every release of one node, once in a round."""

    def __init__(self, releases: Releases, clock: Clock) -> None:
        self._releases = releases
        self._clock = clock
        self.kills: dict[str, dict[str, str]] = {}  # by endpoint and challenger: why, as of this round

    def look(self) -> None:
        """Ask the kill rule, which counts looks: so there is one in each round. Needs no store."""
        self.kills = {name: self._kills(name) for name in self._releases.loaded.config.endpoints}

    def judge(self, name: str, *, loading: bool) -> bool:
        """Read the evidence of one experiment and do what follows from it; returns whether that was a move.

        `loading`: its plan waits for a model. Raises StoreError.
        """
        releases = self._releases
        state, engine = releases.states[name], releases.engine
        run = releases.run(state.experiment)
        kills, crashes = self.kills[name], self._crashes(name)
        known = engine.progress(state.experiment), releases.facts_lost, loading, crashes
        if not kills and not run.due((state, releases.loaded.digest, known), self._clock.monotonic()):
            return False
        view = msgspec.structs.replace(releases.view(name, loading=loading), kills=kills, crashes=crashes)
        if not state.open:
            return False
        if engine.leading and view.definition.aa and state.status == "running":
            releases.write_what_would_be(view)
        run.decision = run.ripened(decide(view), engine.seen_through, self._clock.wall_us())
        if engine.leading or run.decision.reason in WITHOUT_STATISTICS:
            return self._act(name, view, run.decision)
        return False

    def _act(self, name: str, view: View, decision: Decision) -> bool:
        """Apply what the policy decided, as far as automation allows."""
        rules = view.rules
        if not permitted(rules.automation, decision):
            return False
        if decision.kind == "inconclusive" and rules.on_inconclusive == "hold":
            decision = msgspec.structs.replace(decision, kind="hold")
        leading = decision.reason not in WITHOUT_STATISTICS
        self._releases.apply(name, decision, "gateway", leading=leading, view=view)
        return True

    def _kills(self, name: str) -> dict[str, str]:
        state = self._releases.states[name]
        if state.status != "running":
            return {}
        return self._releases.run(state.experiment).kills(self._releases.health, state)

    def _crashes(self, name: str) -> dict[str, str]:
        releases = self._releases
        if not releases.states[name].open:
            return {}
        stopped = releases.health.crashes.stopped
        return crashing(name, releases.loaded.config.endpoints[name], releases.artifacts, stopped)
