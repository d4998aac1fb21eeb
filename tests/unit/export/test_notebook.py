"""`gateway.connect`: frames with proper types, and a report that shows itself."""

from __future__ import annotations

import socket
import subprocess
import sys
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas
import pytest
from msgspec.structs import replace

import gateway
from gateway.errors import StoreError
from gateway.export.source import SourceError
from gateway.export.writers import MissingExtra
from tests.unit.evidence.world import THRESHOLDS
from tests.unit.export.logs import Logged


def test_exposures_have_proper_types(log: Logged) -> None:
    with gateway.connect(log.url) as connected:
        frame = connected.exposures()
    types = {name: str(of) for name, of in frame.dtypes.items()}
    assert types["at"] == types["completed_at"] == "datetime64[us, UTC]"
    assert {types[name] for name in ("variant", "stage", "error", "segment_origin", "segment_0")} == {"category"}
    assert (types["decision"], types["status"], types["pi"], types["forced"]) == ("int64", "Int64", "float64", "bool")
    assert len(frame) == 121
    assert frame["completed_at"].isna().sum() == frame["status"].isna().sum() == 9
    assert frame["at"].min() == pandas.Timestamp(log.rows("SELECT min(at) FROM assignment")[0][0], unit="us", tz="UTC")
    assert set(frame["segment_origin"].dropna()) == {"EWR", "JFK"}
    assert frame["segment_origin"].isna().sum() == 1  # of the fixed split, whose segments have numbers
    units = {bytes(unit).hex() for (unit,) in log.rows("SELECT unit FROM assignment")}
    assert set(frame["unit"]) == units


def test_outcomes_join_their_exposures(log: Logged) -> None:
    with gateway.connect(log.url) as connected:
        exposures, outcomes = connected.exposures("exp"), connected.outcomes("exp")
        joined = outcomes.merge(exposures, on="decision", suffixes=("_outcome", ""))
        assert len(joined) == len(outcomes) > 100
        assert (joined["assigned_at"] == joined["at"]).all()
        assert str(outcomes["happened_at"].dtype) == "datetime64[us, UTC]"
        assert outcomes["happened_at"].isna().all()
        assert len(connected.outcomes()) == len(outcomes) + 1
        means = joined.groupby("variant", observed=True)["value"].mean()
    stored = log.rows(
        "SELECT r.variant, avg(o.value) FROM outcome o JOIN request r ON r.decision = o.decision GROUP BY r.variant"
    )
    assert means.to_dict() == pytest.approx(dict(stored))


def test_votes_shadows_decisions_and_experiments(log: Logged) -> None:
    with gateway.connect(log.url) as connected:
        votes, decisions = connected.votes("exp"), connected.decisions()
        (experiment,) = connected.experiments().to_dict("records")
        assert len(connected.shadows()) == log.rows("SELECT count(*) FROM shadow")[0][0]
    assert votes["ordinal"].tolist() == list(range(1, len(votes) + 1))
    assert votes["odds"].iloc[0] == [0.5, 0.5]
    assert votes["complete"].dtype == bool
    assert decisions["kind"].tolist() == ["start", "advance", "promote"]
    assert decisions["body"].iloc[-1]["evidence"]["experiment"] == "exp"
    assert (experiment["id"], experiment["challengers"]) == ("exp", ["b"])
    assert experiment["definition"]["objective"] == "brier"


def test_ranges_take_whatever_says_a_time(log: Logged) -> None:
    midnight = datetime(2023, 11, 15, tzinfo=UTC)
    with gateway.connect(log.url) as connected:
        later = len(connected.exposures(since=midnight))
        assert 0 < later < 121
        for when in ("2023-11-15", date(2023, 11, 15), pandas.Timestamp(midnight), "2023-11-15T01:00+01:00"):
            assert len(connected.exposures(since=when)) == later
            assert len(connected.exposures(until=when)) == 121 - later
        assert len(connected.decisions(until="2023-11-15")) == 1


@pytest.mark.parametrize("when", ["soon", "", pandas.NaT, [1], object(), "9999-99-99", "12026-01-01"])
def test_what_is_no_time_is_refused_in_our_words(sqlite_log: Logged, when: Any) -> None:
    with gateway.connect(sqlite_log.url) as connected:
        for how in ({"since": when}, {"until": when}):
            with pytest.raises(ValueError, match=r'^expected a time such as "2026-07-01", .* found ') as caught:
                connected.exposures(**how)
            assert type(caught.value) is ValueError


def test_a_server_that_does_not_answer_is_found_out_at_once() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # and does not listen
        port = listener.getsockname()[1]
        with pytest.raises(StoreError, match=f"127.0.0.1:{port}.*cannot be reached"):
            gateway.connect(f"postgresql://x@127.0.0.1:{port}/y")


def test_results_and_tests_are_those_of_the_evidence(log: Logged) -> None:
    report = log.world.report
    with gateway.connect(log.url) as connected:
        results, tests = connected.results("exp"), connected.tests("exp")
        strict = connected.tests("exp", replace(THRESHOLDS, alpha=1e-9))
    assert results["estimate"].tolist() == [one.estimate for one in report.estimates]
    assert tests["needed"].tolist() == [test.needed for test in report.tests]
    assert strict["needed"].max() > tests["needed"].max()
    assert strict["log_e"].tolist() == tests["log_e"].tolist()


class _Cells(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        """Nothing is open behind <line/>."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_report_shows_effects_with_intervals(log: Logged) -> None:
    with gateway.connect(log.url) as connected:
        findings = connected.report("exp")
    assert findings.report == log.world.report
    cells = _Cells(findings._repr_html_())
    assert cells.open == []
    overall = findings.report.estimate("brier")
    assert overall is not None
    assert f"[{overall.lower:+.4g}, {overall.upper:+.4g}]" in cells.texts
    assert {"origin=EWR", "brier is better", "errors is not much worse"} <= set(cells.texts)
    assert findings.effects["lower"].tolist() == [one.lower for one in findings.report.estimates]
    assert "undecided" in repr(findings) or findings.report.verdict in repr(findings)


def test_names_are_escaped_in_html(log: Logged) -> None:
    with gateway.connect(log.url) as connected:
        findings = connected.report("exp")
    report = replace(findings.report, experiment="<script>", verdicts={"<b>": "better"}, sample_ratio_alarm=True)
    html = findings._replace(report=report, ended=True)._repr_html_()
    assert "<script>" not in html
    assert "&lt;b&gt;" in html
    assert "no comparison can be trusted" in html


def test_any_query(log: Logged) -> None:
    with gateway.connect(log.url) as connected:
        found = connected.sql(
            "SELECT variant, count(*) AS units, min(at) AS first FROM vote WHERE experiment = ?"
            " GROUP BY variant ORDER BY variant",
            ["exp"],
            times=["first"],
        )
        assert list(found.columns) == ["variant", "units", "first"]
        assert found["variant"].tolist() == ["a", "b"]
        assert str(found["first"].dtype) == "datetime64[us, UTC]" or "UTC" in str(found["first"].dtype)
        assert connected.sql("SELECT '100%' AS share")["share"].tolist() == ["100%"]
        with pytest.raises(StoreError, match="read"):
            connected.sql("DELETE FROM vote")
        with pytest.raises(StoreError, match="nowhere"):
            connected.sql("SELECT * FROM nowhere")
    assert log.rows("SELECT count(*) FROM vote")[0][0] == found["units"].sum()


def test_the_store_goes_on_while_it_is_read(log: Logged) -> None:
    with gateway.connect(log.url) as connected:
        before, watermark = connected.exposures(), connected.watermark
        log.world.whole("somebody new", True, 0.5)
        log.world.settle()
        assert len(connected.exposures()) == len(before) + 1
        assert connected.watermark > watermark


def test_what_is_missing_is_named(sqlite_log: Logged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gateway.connect(sqlite_log.url) as connected:
        with pytest.raises(StoreError, match="no experiment other; it knows exp"):
            connected.votes("other")
        assert repr(connected) == f"<gateway log {sqlite_log.url}>"
    with pytest.raises(StoreError, match="no store yet"):
        gateway.connect(f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(SourceError, match="No such file"):
        gateway.connect(str(tmp_path / "none.yaml"))
    with pytest.raises(SourceError, match=r"mysql://me:\*\*\*@there"):
        gateway.connect("mysql://me:secret@there")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtra, match=r"ab-gateway\[notebook\]"):
        gateway.connect(sqlite_log.url)


def test_to_import_the_package_imports_nothing_heavy() -> None:
    code = "import gateway, sys; print(sorted({'pandas', 'numpy', 'sqlite3', 'scipy', 'msgspec'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"
