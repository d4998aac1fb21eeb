"""The views of `admin.views` as a person reads them in a terminal."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

TEST_NAMES = {
    "promote": "{} is better",
    "harm": "{} is worse",
    "futility": "{} cannot be much better",
    "non_inferior": "{} is not much worse",
    "sample_ratio": "the split is not as configured ({})",
}


def print_status(document: dict[str, Any]) -> None:
    Console().print(status_view(document))


def status_view(document: dict[str, Any]) -> RenderableType:
    """The whole status: node, then each endpoint."""
    config = document["config"]
    plan = f"plan {document['plan_revision']}, {len(document['workers'])} workers"
    lines: list[RenderableType] = [Text(f"gateway {document['version']} · {plan} · config {config['digest'][:12]}")]
    lines += [
        Text(f"config refused, the last good one stays: {problem}", style="bold red") for problem in config["problems"]
    ]
    lines += [Text(f"{key} changes at the next restart only", style="yellow") for key in config["needs_restart"]]
    if not document["store"]["ok"]:
        lines.append(Text(f"store: {document['store']['error']}", style="bold red"))
    for name, endpoint in document["endpoints"].items():
        lines += ["", endpoint_view(name, endpoint)]
    return Group(*lines)


def endpoint_view(name: str, endpoint: dict[str, Any]) -> RenderableType:
    split = "  ".join(f"{variant} {share}" for variant, share in sorted(_percent(endpoint["split"]).items()))
    head = Text.assemble((name, "bold"), f"  {endpoint['status']}  ·  champion {endpoint['champion']}  ·  {split}")
    experiment = endpoint.get("experiment")
    if experiment is None:
        return head
    parts: list[RenderableType] = [head, Text(f"experiment {experiment['id']}: {stage_line(experiment)}")]
    if experiment["hold"]:
        parts.append(Text(f"held: {experiment['hold']}", style="yellow"))
    if experiment["next"]:
        parts.append(Text(_next_line(experiment), style="dim"))
    report = experiment["report"]
    if report is not None:
        parts += [estimates_table(report), tests_table(report)]
    return Group(*parts)


def _next_line(experiment: dict[str, Any]) -> str:
    """What the policy says now, and whether the gateway will do it."""
    following = experiment["next"]
    line = f"{following['kind']}: {following['text']}"
    waits = following["kind"] in ("advance", "promote", "rollback", "inconclusive")
    if waits and experiment["automation"] != "full":
        return f"recommended, not done (automation: {experiment['automation']}): {line}"
    return line


def stage_line(experiment: dict[str, Any]) -> str:
    """The stages with the present one in brackets."""
    return " → ".join(
        f"[{stage['name']}]" if stage["name"] == experiment["stage"] else stage["name"]
        for stage in experiment["stages"]
    )


def estimates_table(report: dict[str, Any]) -> Table:
    """Effects: every metric overall, the objective by segment too."""
    objective = next((test["metric"] for test in report["tests"] if test["name"] == "promote"), "")
    table = Table(title="challenger minus champion, with anytime-valid 95 % intervals", title_justify="left", box=None)
    for column in ("metric", "segment", "units", "lower", "estimate", "upper", ""):
        table.add_column(column, justify="left" if column in ("metric", "segment", "") else "right")
    for row in report["estimates"]:
        if row["segment"] == "worst" or (row["segment"] and row["metric"] != objective):
            continue
        better = "higher is better" if row["increase"] else "lower is better"
        table.add_row(
            row["metric"],
            row["segment"] or "all",
            f"{row['units'][0]} + {row['units'][1]}",
            # Without units on both sides there is nothing to compare.
            *(f"{row[bound]:+.4f}" if all(row["units"]) else "-" for bound in ("lower", "estimate", "upper")),
            "" if row["segment"] else better,
        )
    return table


def tests_table(report: dict[str, Any]) -> Table:
    table = Table(title="evidence towards each decision", title_justify="left", box=None)
    for column in ("hypothesis", "E", "needed", ""):
        table.add_column(column, justify="right" if column in ("E", "needed") else "left")
    for test in report["tests"]:
        if test["segment"]:
            continue
        table.add_row(
            TEST_NAMES[test["name"]].format(test["metric"]),
            number(test["log_e"]),
            number(test["needed"]),
            bar(test["log_e"] / test["needed"]),
        )
    return table


def number(log_value: float) -> str:
    """e**x for people, to three digits; huge ones too, where the float would overflow."""
    if abs(log_value) < 700:
        return f"{math.exp(log_value):.3g}"
    exponent, fraction = divmod(log_value / math.log(10), 1.0)
    return f"{10**fraction:.3g}e{exponent:+.0f}"


def bar(share: float, width: int = 20) -> str:
    filled = round(width * min(1.0, max(0.0, share)))
    return "█" * filled + "·" * (width - filled)


def _percent(split: dict[str, float]) -> dict[str, str]:
    return {name: f"{100 * share:.4g} %" for name, share in split.items()}
