"""The README's tables, made from result files and nothing else."""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import stats_plan
from benchmarks.results_file import RESULTS, ROOT, Case

SCENARIOS = {"better": "promote", "harmful": "rollback", "same": "inconclusive", "crashing": "rollback"}
_NOT_YET = "Not measured yet: `make prove` does it.\n"


def endings_table() -> str:
    """The endings by scenario, from the result files."""
    lines = [
        "| scenario | expected | under a fake clock | over real HTTP | flights to the decision: median, 95 % "
        "| met the challenger: median | failed requests |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    clock, http = _by_scenario("demo-clock"), _by_scenario("demo-http")
    for scenario, expected in SCENARIOS.items():
        cases = clock[scenario] + http[scenario]
        if not cases:
            continue
        units = sorted(case["units"] for case in cases)
        harmed = statistics.median(case["harmed_share"] for case in cases)
        lines.append(
            f"| `{scenario}` | {expected} | {_share(clock[scenario], expected)} | {_share(http[scenario], expected)} "
            f"| {statistics.median(units):,.0f}, {units[int(0.95 * (len(units) - 1))]:,} | {harmed:.2%} "
            f"| {sum(case['failed_requests'] for case in cases)} |"
        )
    sources = ", ".join(
        f"`{path.relative_to(ROOT)}` at {json.loads(path.read_text())['revision']}"
        for path in sorted(RESULTS.glob("demo-*.json"))
    )
    return "\n".join([*lines, "", f"From {sources}.", ""]) if sources else ""


def reload_table() -> str:
    """What changes under load have cost, from the result file."""
    path = RESULTS / "reload.json"
    if not path.exists():
        return _NOT_YET
    document = json.loads(path.read_text())
    lines = [
        "| changes | of them promotions | requests | at a time of no doubt | failed | by another variant "
        "| edits that moved somebody for nothing | median | 99 % | slowest |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {one['changes']} | {one['promotions']} | {one['requests']:,} at {one['rate']}/s | {one['certain']:,} "
        f"| {one['failed']} | {one['by_another_variant']} | {one['moved_by_unrelated_edits']} "
        f"| {one['median_ms']} ms | {one['p99_ms']} ms | {one['slowest_ms']} ms |"
        for one in document["cases"].values()
    ]
    return "\n".join([*lines, "", f"From `{path.relative_to(ROOT)}` at {document['revision']}.", ""])


def fuzz_table() -> str:
    """How many cases the decoders got, and what was found, from the result file."""
    path = RESULTS / "fuzz.json"
    if not path.exists():
        return _NOT_YET
    stored = json.loads(path.read_text())
    lines = ["| read | tests | examples | seconds | found |", "|---|--:|--:|--:|---|"]
    lines += [
        f"| {module.removeprefix('test_').replace('_', ' ')} | {len(case['tests'])} | {case['examples']:,} "
        f"| {case['seconds']:.0f} | {'nothing' if case['pass'] else '**a failure**'} |"
        for module, case in stored["cases"].items()
    ]
    return "\n".join([*lines, "", f"From `{path.relative_to(ROOT)}` at {stored['revision']}.", ""])


def goals_table(name: str) -> str:
    """A proof's goals against their limits, from its result file."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return _NOT_YET
    stored = json.loads(path.read_text())
    goals = [case["goals"] for case in stored["cases"].values() if "goals" in case]
    if not goals:
        return _NOT_YET
    lines = ["| goal | value | limit |", "|---|--:|--:|", *map(goal, goals[-1])]
    return "\n".join([*lines, "", f"From `{path.relative_to(ROOT)}` at {stored['revision']}.", ""])


def growth_table() -> str:
    """What a fact costs by how many there are, from the result file."""
    path = RESULTS / "growth.json"
    if not path.exists():
        return _NOT_YET
    stored = json.loads(path.read_text())
    lines = ["| facts in the store | store | CPU µs a fact | wall µs |", "|--:|---|--:|--:|"]
    for key, case in stored["cases"].items():
        sizes = sorted(int(name.removeprefix("us_wall_")) for name in case if name.startswith("us_wall_"))
        lines += [
            f"| {size:,} | {key.partition(',')[0]} | {number(case[f'us_{size}'])} | {number(case[f'us_wall_{size}'])} |"
            for size in sizes
        ]
    goals = [case["goals"] for case in stored["cases"].values() if "goals" in case]
    if goals:
        lines += ["", "| goal | value | limit |", "|---|--:|--:|", *map(goal, goals[-1])]
    return "\n".join([*lines, "", f"From `{path.relative_to(ROOT)}` at {stored['revision']}.", ""])


def goal(record: Mapping[str, Any]) -> str:
    """A row: what was measured, its value, its limit."""
    value = number(record["value"]) if record["pass"] else f"**{number(record['value'])}, missed**"
    return f"| {record['what']} | {value} | {'≥' if record['at_least'] else '≤'} {number(record['limit'])} |"


def _by_scenario(name: str) -> dict[str, list[Case]]:
    path: Path = RESULTS / f"{name}.json"
    grouped: dict[str, list[Case]] = defaultdict(list)
    if path.exists():
        for key, case in json.loads(path.read_text())["cases"].items():
            grouped[key.split("/")[0]].append(case)
    return grouped


def _share(cases: list[Case], expected: str) -> str:
    counts = Counter(case["decision"] for case in cases)
    return f"{counts[expected]} of {len(cases)}" if cases else "–"  # noqa: RUF001


def statistics_table() -> str:
    """The goals of the statistics against their limits, and other tests on the same streams, from the result file."""
    path = RESULTS / "statistics.json"
    if not path.exists():
        return _NOT_YET
    stored = json.loads(path.read_text())
    cases: dict[str, list[dict[str, Any]]] = stored["cases"]
    lines = ["| goal | measured | value | limit | runs |", "|---|---|--:|--:|--:|"]
    for record in stats_plan.summary(cases):
        value = number(record["value"]) if record["pass"] else f"**{number(record['value'])}, missed**"
        sign = "≥" if record["at_least"] else "≤"
        limit = f"{sign} {number(record['limit'])}"
        lines.append(f"| {record['goal']} | {record['what']} | {value} | {limit} | {record['runs']:,} |")
    seconds = sum(records[0]["seconds"] for records in cases.values())
    missing = [key for key in stats_plan.CASES if key not in cases]
    parts = ["\n".join(lines)]
    if missing:
        parts.append(f"Not measured yet: {', '.join(f'`{key}`' for key in missing)}.")
    parts += _rivals(cases)
    machine = stored["machine"]
    parts.append(
        f"From `{path.relative_to(ROOT)}` at {stored['revision']}: {seconds / 60:.0f} minutes of one core, "
        f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}."
    )
    return "\n\n".join(parts) + "\n"


def traps_table() -> str:
    """Each recipe that fools other tests: the worst of its measurements, and what fools do, from the result file."""
    path = RESULTS / "traps.json"
    if not path.exists():
        return _NOT_YET
    stored = json.loads(path.read_text())
    lines = ["| trap | measured | value | limit | runs | naive |", "|---|---|--:|--:|--:|--:|"]
    for name, case in stored["cases"].items():
        own = [one for one in case["measured"] if not one["what"].startswith("naive")]
        fooled = [one for one in case["measured"] if one["what"].startswith("naive")]
        for n, one in enumerate(own):
            value = number(one["value"]) if one["pass"] else f"**{number(one['value'])}, missed**"
            limit = f"{'≥' if one['at_least'] else '≤'} {number(one['limit'])}"
            first = name if n == 0 else ""
            naive = ", ".join(number(bad["value"]) for bad in fooled) if n == 0 else ""
            lines.append(f"| {first} | {one['what']} | {value} | {limit} | {one['runs']:,} | {naive} |")
    known = [f"- {name}: {case['known']}." for name, case in stored["cases"].items() if case["known"]]
    parts = ["\n".join(lines)]
    if known:
        parts.append("Known misses:\n\n" + "\n".join(known))
    parts.append(f"From `{path.relative_to(ROOT)}` at {stored['revision']}.")
    return "\n\n".join(parts) + "\n"


def _rivals(cases: dict[str, list[dict[str, Any]]]) -> list[str]:
    """This test beside others on the same streams (G4)."""
    if not {"G4/effect", "G4/equal"} <= set(cases):
        return []
    units, false = cases["G4/effect"][0]["detail"]["mean units"], cases["G4/equal"][0]["detail"]
    lines = [
        f"| test | units needed | {' | '.join(f'promoted although equal: {name}' for name in false)} |",
        "|---|--:|" + "--:|" * len(false),
    ]
    for name, needed in units.items():
        label = "**the gateway's**" if name == stats_plan.OURS else name
        rates = " | ".join(number(rates[name]) for rates in false.values())
        lines.append(f"| {label} | {needed:,.0f} | {rates} |")
    return ["Other tests on the same streams, alpha .05, looking after every unit (G4):", "\n".join(lines)]


def number(value: float) -> str:
    """Three digits, four below .1 (limits of error rates differ in the fourth), whole from 1,000 on."""
    if value and abs(value) < 1e-4:
        return f"{value:.1e}"
    if abs(value) >= 1000.0:
        return f"{value:,.0f}"
    text = f"{value:.4f}" if abs(value) < 0.1 else f"{value:.3g}"
    return text.rstrip("0").rstrip(".") if "." in text else text
