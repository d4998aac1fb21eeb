"""What is known about one experiment, as it shows itself in a notebook."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from gateway.admin.text import CUTS, TEST_NAMES, number
from gateway.evidence.definition import Definition
from gateway.evidence.report import Estimate, Report, Test
from gateway.export.columns import Row
from gateway.export.frames import frame
from gateway.export.records import RESULTS, result_rows
from gateway.export.writers import iso

if TYPE_CHECKING:
    import pandas

_WIDTH, _HEIGHT = 160, 14  # of a drawn interval, in pixels
_COLOURS = {"better": "#2a7d3f", "worse": "#b3261e", "": "#666"}


class Findings(NamedTuple):
    """A report with what it is of."""

    report: Report
    definition: Definition
    watermark: int
    ended: bool

    @property
    def effects(self) -> pandas.DataFrame:
        """Challenger minus champion, with anytime-valid 95 % intervals."""
        rows: Iterator[Row] = result_rows(self.report)
        return frame(RESULTS, rows)

    def __repr__(self) -> str:
        words = ", ".join(f"{name}: {word}" for name, word in self.report.verdicts.items())
        return f"<report of {self.report.experiment}: {words}; {self.report.units:,} units>"

    def _repr_html_(self) -> str:
        return "\n".join(self._parts())

    def _parts(self) -> Iterator[str]:
        report, definition = self.report, self.definition
        words = "; ".join(f"<b>{escape(name)}</b>: {word}" for name, word in report.verdicts.items())
        yield f"<h4>{escape(report.experiment)}</h4>"
        yield (
            f"<p>{words} &middot; against {escape(definition.champion)} at {escape(definition.endpoint)}"
            f" &middot; {report.units:,} units, {report.folded:,} of them folded, up to {iso(self.watermark)}</p>"
        )
        if report.sample_ratio_alarm:
            yield "<p><b>The split is not as configured: no comparison can be trusted.</b></p>"
        if self.ended:
            yield "<p>Estimates at stopping: biased towards what ended the experiment.</p>"
        yield _table(("challenger", "metric", "segment", "units", "effect", "95 % interval", ""), self._effects())
        yield _table(("challenger", "hypothesis", "E", "needed", "met"), map(_test, _shown(report.tests)))

    def _effects(self) -> Iterator[tuple[str, ...]]:
        """Every metric overall, the objective by segment too."""
        for one in self.report.estimates:
            if one.segment == "" or one.metric == self.definition.objective:
                yield _effect(one)


def _effect(one: Estimate) -> tuple[str, ...]:
    metric = f"{one.metric} (mean, asymptotic)" if one.method == "asymptotic" else one.metric
    wanted = "higher is better" if one.increase else "lower is better"
    where = CUTS.get(one.segment, one.segment)
    about = (escape(one.challenger), escape(metric), escape(where), f"{one.units[0]:,} + {one.units[1]:,}")
    if not all(one.units):
        return *about, "&ndash;", "&ndash;", wanted
    word = "better" if one.better else "worse" if one.worse else ""
    told = f"{_interval(one, word)} {word or wanted}"
    return *about, f"{one.estimate:+.4g}", f"[{one.lower:+.4g}, {one.upper:+.4g}]", told


def _interval(one: Estimate, word: str) -> str:
    """The interval as a line, with the estimate as a dot and no effect in the middle."""
    reach = max(abs(one.lower), abs(one.upper)) or 1.0
    left, dot, right = (_WIDTH / 2 * (1 + 0.95 * value / reach) for value in (one.lower, one.estimate, one.upper))
    colour, middle = _COLOURS[word], _HEIGHT / 2
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="interval">'
        f'<line x1="{_WIDTH / 2}" y1="0" x2="{_WIDTH / 2}" y2="{_HEIGHT}" stroke="#aaa"/>'
        f'<line x1="{left:.1f}" y1="{middle}" x2="{right:.1f}" y2="{middle}" stroke="{colour}" stroke-width="2"/>'
        f'<circle cx="{dot:.1f}" cy="{middle}" r="3" fill="{colour}"/></svg>'
    )


def _shown(tests: tuple[Test, ...]) -> Iterator[Test]:
    """Overall, since a promotion, and where harm is proved."""
    for test in tests:
        if test.segment in ("", "watch") or (test.name == "harm" and test.met):
            yield test


def _test(test: Test) -> tuple[str, ...]:
    where = f" ({CUTS.get(test.segment, test.segment)})" if test.segment else ""
    said = escape(TEST_NAMES[test.name].format(test.metric) + where)
    return escape(test.challenger), said, number(test.log_e), number(test.needed), "yes" if test.met else ""


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """`rows` are HTML already."""
    titles = "".join(f"<th>{title}</th>" for title in head)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table>"
