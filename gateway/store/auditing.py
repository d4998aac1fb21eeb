"""What replay and verification read: what happened, and whatever does not fit. Statements that engines share.

Nothing here is quick: each looks at every row there is.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from gateway.store.base import PlanRow, Store, Vote
from gateway.store.tables import Tables


class Odd(NamedTuple):
    """Votes that do not fit."""

    experiment: str
    votes: int
    first: int  # ordinal of the first of them


class Drawn(NamedTuple):
    """A variant that some assignment got by chance, and the plan that it names."""

    revision: int
    endpoint: str
    variant: str


class Auditable(Store, Protocol):
    """A store that can be looked through. Raises StoreError when the engine fails."""

    def votes(self, experiment: str, after: int, limit: int) -> list[Vote]:
        """The first votes behind an ordinal."""

    def shipping_steps(self, after: int, end: int, limit: int) -> list[tuple[int, int]]:
        """Decision and step of the first assignments in (after, end); a step of 0 is one that nobody wrote down."""

    def late_assignments(self) -> set[int]:
        """Decisions that came from a spool that had been given up: they have no vote."""

    def plans(self) -> list[PlanRow]:
        """Every plan that was published, ascending."""

    def integrity(self) -> list[str]:
        """What the engine itself finds wrong, a line each."""

    def votes_without_assignment(self, since: int) -> list[Odd]:
        """Of units that are not erased, from that time on."""

    def votes_unlike_assignment(self, since: int) -> list[Odd]: ...
    def votes_without_unit(self, since: int) -> list[Odd]: ...
    def votes_twice(self) -> list[Odd]:
        """Whose decision has another vote."""

    def vote_extent(self, experiment: str) -> tuple[int, int, int]:
        """How many votes there are, the first ordinal and the last."""

    def votes_by_odds(self, experiment: str) -> dict[tuple[tuple[float, ...], int], int]:
        """Votes by the odds of all arms and the arm that was drawn."""

    def votes_by_stage(self, experiment: str, last: int, *, complete_only: bool) -> dict[tuple[str, int], int]:
        """Votes up to an ordinal, by stage and arm."""

    def last_votes(self) -> dict[int, int]:
        """By spool, the last decision with a vote."""

    def drawn(self) -> list[Drawn]:
        """What chance has given, by plan."""

    def outcomes_twice(self) -> int: ...
    def settled_without_vote(self) -> int: ...
    def facts_of_erased(self) -> int:
        """Assignments, completions, shadows and outcomes of erased units that are there all the same."""


class AuditTables(Tables):
    """The statements of `Auditable` that engines share."""

    def votes(self, experiment: str, after: int, limit: int) -> list[Vote]:
        rows = self.rows(
            "SELECT experiment, ordinal, decision, at, stage, variant, arm, segments, odds, complete, covariates"
            " FROM vote WHERE experiment = ? AND ordinal > ? ORDER BY ordinal LIMIT ?",
            (experiment, after, limit),
        )
        return [_vote(row) for row in rows]

    def shipping_steps(self, after: int, end: int, limit: int) -> list[tuple[int, int]]:
        return self.rows(
            "SELECT decision, step FROM assignment WHERE decision > ? AND decision < ? ORDER BY decision LIMIT ?",
            (after, end, limit),
        )

    def late_assignments(self) -> set[int]:
        return {decision for (decision,) in self.rows("SELECT decision FROM late_fact WHERE kind = 'assignment'")}

    def plans(self) -> list[PlanRow]:
        rows = self.rows("SELECT revision, at, as_of, config_digest, shares, slots FROM plan ORDER BY revision")
        return [PlanRow(*row) for row in rows]

    def integrity(self) -> list[str]:
        return []

    # ------------------------------------------------------------------ votes that do not fit

    def votes_without_assignment(self, since: int) -> list[Odd]:
        joined = f"LEFT JOIN assignment a ON a.decision = v.decision{self.same_day('a', 'v.at')}"
        return self._odd(joined, "a.decision IS NULL", since)

    def votes_unlike_assignment(self, since: int) -> list[Odd]:
        columns = ("experiment", "at", "stage", "variant", "segments", "covariates")
        return self._odd(self._request(), " OR ".join(f"r.{name} <> v.{name}" for name in columns), since)

    def votes_without_unit(self, since: int) -> list[Odd]:
        known = "LEFT JOIN unit u ON u.experiment = v.experiment AND u.bucket = r.bucket AND u.unit = r.unit"
        return self._odd(f"{self._request()} {known}", "u.unit IS NULL", since)

    def votes_twice(self) -> list[Odd]:
        rows = self.rows(
            "SELECT experiment, CAST(sum(n) AS BIGINT), min(first) FROM (SELECT experiment, count(*) AS n,"
            " min(ordinal) AS first FROM vote WHERE decision <> 0 GROUP BY experiment, decision) AS counted"
            " WHERE n > 1 GROUP BY experiment ORDER BY experiment"
        )
        return [Odd(*row) for row in rows]

    def _request(self) -> str:
        return f"JOIN request r ON r.decision = v.decision{self.same_day('r', 'v.at')}"

    def _odd(self, joined: str, condition: str, since: int) -> list[Odd]:
        rows = self.rows(
            f"SELECT v.experiment, count(*), min(v.ordinal) FROM vote v {joined}"
            f" WHERE v.decision <> 0 AND v.at >= ? AND ({condition}) GROUP BY v.experiment ORDER BY v.experiment",
            (since,),
        )
        return [Odd(*row) for row in rows]

    # ------------------------------------------------------------------ counts

    def vote_extent(self, experiment: str) -> tuple[int, int, int]:
        number, first, last = self.row(
            "SELECT count(*), min(ordinal), max(ordinal) FROM vote WHERE experiment = ?", (experiment,)
        )
        return number, first or 0, last or 0

    def votes_by_odds(self, experiment: str) -> dict[tuple[tuple[float, ...], int], int]:
        rows = self.rows(
            "SELECT odds, arm, count(*) FROM vote WHERE experiment = ? GROUP BY odds, arm ORDER BY odds, arm",
            (experiment,),
        )
        return {(tuple(json.loads(odds)), arm): number for odds, arm, number in rows}

    def votes_by_stage(self, experiment: str, last: int, *, complete_only: bool) -> dict[tuple[str, int], int]:
        rows = self.rows(
            "SELECT stage, arm, count(*) FROM vote WHERE experiment = ? AND ordinal <= ? AND complete >= ?"
            " GROUP BY stage, arm",
            (experiment, last, int(complete_only)),
        )
        return {(stage, arm): number for stage, arm, number in rows}

    def last_votes(self) -> dict[int, int]:
        rows = self.rows(
            "SELECT decision / 1099511627776, max(decision) FROM vote WHERE decision > 0"
            " GROUP BY decision / 1099511627776"
        )
        return dict(rows)

    def drawn(self) -> list[Drawn]:
        rows = self.rows(
            "SELECT DISTINCT revision, endpoint, variant FROM draw WHERE flags = 0 ORDER BY revision, endpoint, variant"
        )
        return [Drawn(*row) for row in rows]

    def outcomes_twice(self) -> int:
        number: int = self.row(
            "SELECT count(*) FROM (SELECT decision FROM outcome GROUP BY decision, metric, id"
            " HAVING count(*) > 1) AS twice"
        )[0]
        return number

    def settled_without_vote(self) -> int:
        number: int = self.row(
            "SELECT count(*) FROM settled x LEFT JOIN vote v ON v.experiment = x.experiment AND v.ordinal = x.ordinal"
            " WHERE v.ordinal IS NULL"
        )[0]
        return number

    def facts_of_erased(self) -> int:
        tables = ("assignment", "completion", "shadow", "outcome")
        counts = (f"(SELECT count(*) FROM erased e JOIN {name} f ON f.decision = e.decision)" for name in tables)
        number: int = self.row(f"SELECT {' + '.join(counts)}")[0]
        return number


def _vote(row: tuple[Any, ...]) -> Vote:
    *known, segments, odds, complete, covariates = row
    return Vote._make((*known, _parsed(segments), _parsed(odds), bool(complete), _parsed(covariates)))


@lru_cache(maxsize=4096)
def _parsed(text: str) -> tuple[Any, ...]:
    """Segment values and odds repeat endlessly."""
    return tuple(json.loads(text))
