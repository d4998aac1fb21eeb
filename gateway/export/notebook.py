"""`gateway.connect`: the log as pandas frames, for notebooks. It only looks; the gateway may be running."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from gateway.errors import StoreError
from gateway.evidence.report import Thresholds
from gateway.export import source
from gateway.export.catalog import TABLES
from gateway.export.display import Findings
from gateway.export.facts import Selection
from gateway.export.frames import frame, needed_pandas
from gateway.export.moment import Moment, moment
from gateway.export.query import columns_and_rows
from gateway.release.state import decode

if TYPE_CHECKING:
    import pandas

When: TypeAlias = "str | date | datetime | pandas.Timestamp | None"
_FOREVER = (1 << 63) - 1
_EXPECTED = 'expected a time such as "2026-07-01", "2026-07-01T12:00:00Z", a date, a datetime or a pandas.Timestamp'


class Log:
    """The log of one store. Every call reads what is known by then; a frame is of one moment.

    Times are UTC; those without a zone are taken for UTC. `since` and `until` are about when units were assigned.
    Raises StoreError where the store cannot be read, ValueError for a time that is none.
    """

    def __init__(self, dsn: str) -> None:
        """`dsn`: sqlite:///PATH, postgresql://…, a SQLite file, or the config of a gateway."""
        needed_pandas()
        self._url = source.named(dsn).url
        self._store = source.open_readable(self._url)
        try:
            self._store.last_step()  # a server is asked for nothing before somebody wants something of it
        except StoreError:
            self._store.close()
            raise

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<gateway log {source.without_password(self._url)}>"

    def close(self) -> None:
        self._store.close()

    @property
    def watermark(self) -> Any:
        """Up to which time facts are known, as pandas.Timestamp."""
        return needed_pandas().Timestamp(moment(self._store, evidence_of=()).watermark, unit="us", tz="UTC")

    def exposures(self, experiment: str | None = None, since: When = None, until: When = None) -> pandas.DataFrame:
        """Requests: who was given what, and how it ended."""
        return self._table("exposures", experiment, since, until)

    def outcomes(self, experiment: str | None = None, since: When = None, until: When = None) -> pandas.DataFrame:
        """What became of exposures."""
        return self._table("outcomes", experiment, since, until)

    def shadows(self, experiment: str | None = None, since: When = None, until: When = None) -> pandas.DataFrame:
        """What variants that answered nobody said to copies of requests."""
        return self._table("shadows", experiment, since, until)

    def votes(self, experiment: str, since: When = None, until: When = None) -> pandas.DataFrame:
        """Units as the statistics see them, in the order of their coins."""
        return self._table("votes", experiment, since, until)

    def decisions(self, experiment: str | None = None, since: When = None, until: When = None) -> pandas.DataFrame:
        """The ledger; `body` has everything, with the evidence."""
        return self._table("decisions", experiment, since, until)

    def experiments(self) -> pandas.DataFrame:
        """Every experiment that ever ran, with its verdict."""
        return self._table("experiments", None, with_evidence=True)

    def results(self, experiment: str) -> pandas.DataFrame:
        """Effects with their anytime-valid 95 % intervals, overall and by segment."""
        return self._table("results", experiment, with_evidence=True)

    def tests(self, experiment: str, thresholds: Thresholds | None = None) -> pandas.DataFrame:
        """Hypotheses with their evidence, as logarithms of e-values.

        Against `thresholds`, by default those of the last decision about the experiment.
        """
        return self._table("tests", experiment, with_evidence=True, thresholds=thresholds)

    def report(self, experiment: str, thresholds: Thresholds | None = None) -> Findings:
        """What is known about an experiment; shows itself in a notebook. Thresholds as in `tests`."""
        now = self._now(experiment, with_evidence=True)
        if thresholds is not None:
            now.thresholds[experiment] = thresholds
        definition = now.experiments[experiment]
        state = self._store.releases().get(definition.endpoint)
        release = decode(state[1]) if state else None
        ended = release is not None and not (release.experiment == experiment and release.open)
        return Findings(now.report(experiment), definition, now.watermark, ended)

    def sql(
        self, query: str, parameters: Sequence[Any] | Mapping[str, Any] = (), times: Sequence[str] = ()
    ) -> pandas.DataFrame:
        """Any query; the schema is in gateway/store/README.md. `times` are columns of microseconds to read as times."""
        pandas = needed_pandas()
        columns, rows = columns_and_rows(self._url, query, parameters)
        found = pandas.DataFrame(rows, columns=columns)
        for name in times:
            found[name] = pandas.to_datetime(found[name], unit="us", utc=True)
        return found

    def _table(
        self,
        name: str,
        experiment: str | None,
        since: When = None,
        until: When = None,
        *,
        with_evidence: bool = False,
        thresholds: Thresholds | None = None,
    ) -> Any:
        table = TABLES[name]
        selected = Selection(experiment, _micros(since, 0), _micros(until, _FOREVER))
        now = self._now(experiment, with_evidence)
        if thresholds is not None and experiment is not None:
            now.thresholds[experiment] = thresholds
        return frame(table.columns, (row for _, row in table.rows(self._store, now, selected)))

    def _now(self, experiment: str | None, with_evidence: bool) -> Moment:
        wanted = () if not with_evidence else None if experiment is None else [experiment]
        now = moment(self._store, evidence_of=wanted)
        if experiment is not None and experiment not in now.experiments:
            known = ", ".join(now.experiments) or "none"
            raise StoreError(f"the store knows no experiment {experiment}; it knows {known}")
        return now


def _micros(when: When, default: int) -> int:
    """Microseconds since the epoch; raises ValueError."""
    if when is None:
        return default
    pandas = needed_pandas()
    try:
        at = pandas.Timestamp(when)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{_EXPECTED}, found {when!r}") from error
    if at is pandas.NaT:
        raise ValueError(f"{_EXPECTED}, found {when!r}")
    at = at.tz_localize(UTC) if at.tzinfo is None else at
    return int(at.value) // 1000  # pandas gives nanoseconds
