"""The views of `admin.views` as a person reads them in a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

TEST_NAMES = {
    "promote": "{} is better",
    "harm": "{} is worse, at its highest",  # harm latches (R16)
    "futility": "{} cannot be much better",
    "not_worse": "{} cannot be much worse",
    "non_inferior": "{} is not much worse",
    "sample_ratio": "the split is not as configured ({})",
}
SILENT = 10.0  # seconds after which a node is worth a word
SKEWED = 1.0  # seconds between two clocks that are
CUTS = {"": "all", "cycle": "this cycle", "last-cycle": "last cycle", "watch": "since the promotion"}


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
    if config["reading_models"]:
        lines.append(Text("the model files of a new config are being read", style="yellow"))
    lines += [
        Text(f"{path} has changed since it was taken: POST /-/reload takes it anew", style="yellow")
        for path in config["changed_models"]
    ]
    if not document["store"]["ok"]:
        lines.append(Text(f"store: {document['store']['error']}", style="bold red"))
    if document["trouble"]:
        lines.append(Text(f"the log of this node is not whole, nobody is promoted: {document['trouble']}", style="red"))
    lines += [Text(line, style=style) for line, style in _node_lines(document)]
    lines += [Text(f"{one['endpoint']}: stopped on this node: {one['text']}", style="red") for one in document["halts"]]
    for name, endpoint in document["endpoints"].items():
        lines += ["", endpoint_view(name, endpoint)]
    return Group(*lines)


def _node_lines(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Nodes on a shared store, each with what is wrong with it."""
    if document["disagreement"]:
        yield f"nothing begins or grows until all nodes have the same endpoints: {document['disagreement']}", "yellow"
    ahead = document["clock_ahead_seconds"]
    if abs(ahead) >= SKEWED:
        yield f"this node's clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the store's", "yellow"
    for node in document["nodes"]:
        silent = node["silent_seconds"] >= SILENT
        notes = [
            *(["this node"] if node["number"] == document["node"] else []),
            *(["leads"] if node["leads"] else []),
            *([f"silent for {node['silent_seconds']:.0f} s"] if silent else []),
            *([node["trouble"]] if node["trouble"] else []),
        ]
        style = "red" if node["trouble"] else "yellow" if silent else "dim"
        yield f"node {node['number']} ({node['name']}): {', '.join(notes) or 'serves'}", style


def _lag_lines(lags: list[dict[str, Any]]) -> Iterator[str]:
    """Where outcomes of variants take differently long."""
    differing = [one for one in lags if one["differs"]]
    for metric in dict.fromkeys(one["metric"] for one in differing):
        medians = ", ".join(
            f"{one['variant']} {one['median_seconds']:.3g} s" for one in differing if one["metric"] == metric
        )
        yield f"outcomes of {metric} take differently long, median: {medians}"


def endpoint_view(name: str, endpoint: dict[str, Any]) -> RenderableType:
    split = "  ".join(f"{variant} {share}" for variant, share in sorted(_percent(endpoint["split"]).items()))
    head = Text.assemble((name, "bold"), f"  {endpoint['status']}  ·  champion {endpoint['champion']}  ·  {split}")
    parts: list[RenderableType] = [head, *map(_preparing_line, endpoint["preparing"])]
    experiment = endpoint.get("experiment")
    if experiment is None:
        return Group(*parts)
    parts.append(Text(f"experiment {experiment['id']}: {stage_line(experiment)}"))
    parts += [Text(line) for line in _standing(experiment)]
    if experiment["last"]:
        parts.append(Text(_last_line(experiment["last"])))
    if experiment["hold"]:
        parts.append(Text(f"held: {experiment['hold']}", style="yellow"))
    if experiment["next"] and not experiment["hold"]:
        parts.append(Text(_next_line(experiment["next"], experiment["automation"]), style="dim"))
    parts += [Text(line, style="yellow") for line in _lag_lines(experiment["lags"])]
    if experiment["counters"]:
        parts.append(Text(not_counted(experiment["counters"]), style="dim"))
    report = experiment["report"]
    if report is not None:
        parts += [Text(line) for line in verdict_lines(experiment)]
        parts += [Text(line, style="dim") for line in _window_lines(experiment)]
        parts += [estimates_table(experiment, ended=not experiment["running"]), tests_table(experiment)]
    return Group(*parts)


def _preparing_line(model: dict[str, Any]) -> Text:
    """Why a model has no traffic yet."""
    loaded = f"loaded by {model['loaded']} of {model['workers']} workers"
    if model["errors"]:
        why = "; ".join(dict.fromkeys(model["errors"]))
        return Text(f"{model['variant']} gets no traffic, {loaded}: {why}", style="bold red")
    return Text(f"{model['variant']} is prepared: {loaded}", style="yellow")


def _standing(experiment: dict[str, Any]) -> Iterator[str]:
    """What goes on beside the stages."""
    if experiment["aa"]:
        yield "a trial of equals: nothing is promoted, every false alarm is written down"
    watch = experiment["watch"]
    if watch is not None:
        share, left = f"{100 * watch['share']:.4g} %", duration(watch["seconds_left"])
        yield f"watched against {watch['former']}, which keeps {share} for another {left}"
    for one in experiment["kept"]:
        yield f"{one['segment']}={one['value']} stays with {one['variant']}"


def _last_line(row: dict[str, Any]) -> str:
    """The newest decision: what, by whom, why."""
    return f"last decision: {row['kind']} by {row['actor']}: {row['text']}"


def not_counted(counters: list[dict[str, Any]]) -> str:
    """Facts that nothing was folded from, by variant."""
    parts = (f"{one['variant'] or 'unknown variant'} {one['name']} {one['value']:,}" for one in counters)
    return "came, but count for nothing: " + ", ".join(parts)


def _next_line(following: dict[str, Any], automation: str) -> str:
    """What the policy says now, and whether the gateway will do it."""
    line = f"{following['kind']}: {following['text']}"
    return f"recommended, not done (automation: {automation}): {line}" if following["recommended"] else line


def stage_line(experiment: dict[str, Any]) -> str:
    """The stages with the present one in brackets."""
    names = [stage["name"] for stage in experiment["stages"]]
    if experiment["stage"] == "watch":
        names.append("watch")
    return " → ".join(f"[{name}]" if name == experiment["stage"] else name for name in names)


def verdict_lines(experiment: dict[str, Any]) -> Iterator[str]:
    """One word for each challenger, and one for each of its segments of which something is known."""
    report = experiment["report"]
    for name in experiment["challengers"]:
        segments = report["segment_verdicts"].get(name, {})
        known = ", ".join(f"{segment} {word}" for segment, word in segments.items() if word != "undecided")
        gone = "" if name in experiment["running"] or not experiment["running"] else " (no longer in the running)"
        yield f"{name}: {report['verdicts'][name]}{gone}" + (f"; by segment: {known}" if known else "")
    if experiment["cycle_seconds"]:
        yield f"whole business cycles of {duration(experiment['cycle_seconds'])} so far: {report['cycles']}"


def _window_lines(experiment: dict[str, Any]) -> Iterator[str]:
    """Metrics of which nothing is folded yet: what has come for them is kept, and waits."""
    rows = experiment["report"]["estimates"]
    folded = {row["metric"] for row in rows if row["segment"] == "" and any(row["units"])}
    for name, seconds in experiment["window_seconds"].items():
        if name not in folded:
            yield f"{name}: no window has closed yet; a unit counts {duration(seconds)} after its request"


def estimates_table(experiment: dict[str, Any], *, ended: bool) -> Table:
    """Effects, the interval first (rule R17): every metric overall, the objective also by segment and cycle."""
    several = len(experiment["challengers"]) > 1
    title = "challenger minus champion, with anytime-valid 95 % intervals"
    if ended:
        title = "estimates at stopping (biased upwards)"
        watched = any(row["segment"] == "watch" for row in experiment["report"]["estimates"])
        title += "; since the promotion, the honest later one" if watched else ""
    table = Table(title=title, title_justify="left", box=None)
    for column in ("challenger",) * several + ("metric", "segment", "units", "interval", "estimate", ""):
        table.add_column(column, justify="right" if column in ("units", "interval", "estimate") else "left")
    for row in experiment["report"]["estimates"]:
        if row["segment"] in ("", "watch") or row["metric"] == experiment["objective"]:
            table.add_row(*(row["challenger"],) * several, *_estimate(row))
    return table


def _estimate(row: dict[str, Any]) -> tuple[str, ...]:
    asymptotic = row["method"] == "asymptotic"
    interval, estimate = f"[{row['lower']:+.4f}, {row['upper']:+.4f}]", f"{row['estimate']:+.4f}"
    if not all(row["units"]):
        interval = estimate = "-"  # without units on both sides there is nothing to compare
    better = "higher is better" if row["increase"] else "lower is better"
    return (
        f"{row['metric']} (mean, asymptotic)" if asymptotic else row["metric"],
        CUTS.get(row["segment"], row["segment"]),
        f"{row['units'][0]} + {row['units'][1]}",
        interval,
        estimate,
        "" if row["segment"] or asymptotic else better,
    )


def tests_table(experiment: dict[str, Any]) -> Table:
    """Overall, since a promotion, and the segments and cycles in which harm is proved."""
    several = len(experiment["challengers"]) > 1
    table = Table(title="evidence towards each decision", title_justify="left", box=None)
    for column in ("challenger",) * several + ("hypothesis", "E", "needed", ""):
        table.add_column(column, justify="right" if column in ("E", "needed") else "left")
    for test in experiment["report"]["tests"]:
        met = test["log_e"] >= test["needed"]
        if test["segment"] not in ("", "watch") and not (test["name"] == "harm" and met):
            continue
        where = f" ({CUTS.get(test['segment'], test['segment'])})" if test["segment"] else ""
        table.add_row(
            *(test["challenger"],) * several,
            TEST_NAMES[test["name"]].format(test["metric"]) + where,
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
    if 10**fraction >= 9.995:  # to three digits that is the next power
        exponent, fraction = exponent + 1.0, 0.0
    return f"{10**fraction:.3g}e{exponent:+.0f}"


def bar(share: float, width: int = 20) -> str:
    filled = round(width * min(1.0, max(0.0, share)))
    return "█" * filled + "·" * (width - filled)


def duration(seconds: float) -> str:
    """In the largest unit of which there is at least one."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.0f} s"


def _percent(split: dict[str, float]) -> dict[str, str]:
    return {name: f"{100 * share:.4g} %" for name, share in split.items()}
