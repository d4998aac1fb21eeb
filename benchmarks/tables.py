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
        value = _number(record["value"]) if record["pass"] else f"**{_number(record['value'])}, missed**"
        sign = "≥" if record["at_least"] else "≤"
        limit = f"{sign} {_number(record['limit'])}"
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
            value = _number(one["value"]) if one["pass"] else f"**{_number(one['value'])}, missed**"
            limit = f"{'≥' if one['at_least'] else '≤'} {_number(one['limit'])}"
            first = name if n == 0 else ""
            naive = ", ".join(_number(bad["value"]) for bad in fooled) if n == 0 else ""
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
        rates = " | ".join(_number(rates[name]) for rates in false.values())
        lines.append(f"| {label} | {needed:,.0f} | {rates} |")
    return ["Other tests on the same streams, alpha .05, looking after every unit (G4):", "\n".join(lines)]


def _number(value: float) -> str:
    """Three digits, four below .1 (limits of error rates differ in the fourth), whole from 1,000 on."""
    if value and abs(value) < 1e-4:
        return f"{value:.1e}"
    if abs(value) >= 1000.0:
        return f"{value:,.0f}"
    text = f"{value:.4f}" if abs(value) < 0.1 else f"{value:.3g}"
    return text.rstrip("0").rstrip(".") if "." in text else text


_PROXIES = {
    "nginx": "nginx, `split_clients`: the practical limit",
    "envoy": "Envoy, `weighted_clusters`, one worker, nothing logged",
    "gateway": "**this gateway**, everything on",
    "aiohttp_proxy": "bare ASGI + aiohttp client, nothing kept",
    "httpx_proxy": "Starlette + httpx, nothing kept",
}


def proxy_table(summary: Mapping[str, Any]) -> str:
    """What a proxied request costs, server by server, from the summary of `results/proxy.json`."""
    lines = [
        "| server | CPU µs a request, c=32: median (range) | requests/s on one core | added ms, c=1: p50 | p99 |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, label in _PROXIES.items():
        if name in summary:
            own = summary[name]
            added = (_added(summary, own, figure) for figure in ("c1_p50_us", "c1_p99_us"))
            lines.append(
                f"| {label} | {_range(own['c32_cpu_us'])} | {own['c32_rate']['median']:,.0f} | {' | '.join(added)} |"
            )
            lines += _parts(own, columns=5)
    return "\n".join(lines) + "\n"


def _range(spread: Mapping[str, float]) -> str:
    return f"{_number(spread['median'])} ({_number(spread['low'])}-{_number(spread['high'])})"


def _added(summary: Mapping[str, Any], own: Mapping[str, Any], figure: str) -> str:
    if "direct" not in summary:
        return ""
    return _number((own[figure]["median"] - summary["direct"][figure]["median"]) / 1000.0)


_MODEL_SERVERS = {
    "bare": "bare ASGI + orjson + onnxruntime, nothing checked or kept",
    "gateway": "**this gateway**, everything on",
    "mlserver": "MLServer, custom onnxruntime runtime",
    "bentoml": "BentoML",
    "heavy: bare": "heavier model: bare ASGI + orjson + onnxruntime",
    "heavy: gateway, one by one": "heavier model: **this gateway**, one by one",
    "heavy: gateway, batches": "heavier model: **this gateway**, opportunistic batches",
}


def onnx_table(summary: Mapping[str, Any]) -> str:
    """What a model in the process costs, server by server, from the summary of `results/onnx.json`."""
    lines = [
        "| server | CPU µs a request, c=32: median (range) | requests/s on one core, c=32 | p99 ms, c=1 |",
        "|---|--:|--:|--:|",
    ]
    for name, label in _MODEL_SERVERS.items():
        if name in summary:
            own = summary[name]
            p99 = _number(own["c1_p99_us"]["median"] / 1000.0)
            rate = f"{own['c32_rate']['median']:,.0f}"
            lines += [f"| {label} | {_range(own['c32_cpu_us'])} | {rate} | {p99} |", *_parts(own, columns=4)]
    return "\n".join(lines) + "\n"


def _parts(own: Mapping[str, Any], columns: int) -> list[str]:
    """A row for each kind of process of the gateway."""
    return [
        f"| - its {part} | {_range(own[f'c32_cpu_us_{part}'])} |{' |' * (columns - 2)}"
        for part in ("workers", "control", "supervisor")
        if f"c32_cpu_us_{part}" in own
    ]


def flat_table(summary: Mapping[str, Any]) -> str:
    """Cost of a request as other things grow, from the summary of `results/flat.json`."""
    lines = [
        "| varied | CPU µs a request: median (range) | workers | control | requests/s | control idle, % of a core |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, own in summary.items():
        if name != "memory":
            parts = " | ".join(_number(own[f"cpu_us_{part}"]["median"]) for part in ("workers", "control"))
            idle = _number(own["idle_percent_control"]["median"])
            lines.append(f"| {name} | {_range(own['cpu_us'])} | {parts} | {own['rate']['median']:,.0f} | {idle} |")
    if "memory" in summary:
        own = summary["memory"]
        for part in ("workers", "control"):
            first, half, last = (_number(own[f"mb_{part}_{tenth}"]["median"]) for tenth in (1, 5, 10))
            requests = f"{own['requests']['median']:,.0f}"
            told = f"{first} MB after a tenth of {requests} requests, {half} after half, {last} after all."
            lines += ["", f"Memory of the {part}: {told}"]
    return "\n".join(lines) + "\n"
