"""The tables of the request path's benchmarks, made from their summaries and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.results_file import RESULTS, ROOT
from benchmarks.tables import goal, number

Summary = Mapping[str, Any]

_PROXIES = {
    "nginx": "nginx, `split_clients`: the practical limit",
    "envoy": "Envoy, `weighted_clusters`, one worker, nothing logged",
    "gateway": "**this gateway**, everything on",
    "aiohttp_proxy": "bare ASGI + aiohttp client, nothing kept",
    "httpx_proxy": "Starlette + httpx, nothing kept",
}


def proxy_table(summary: Summary) -> str:
    """What a proxied request costs, server by server, from the summary of `results/proxy.json`."""

    def cells(own: Summary) -> list[str]:
        return [_range(own["c32_cpu_us"]), _rate(own), *_added(summary, own, "c1")]

    heads = "CPU µs a request, c=32: median (range)", "requests/s on one core", "added ms, c=1: p50", "p99"
    return _by_server(heads, _PROXIES, summary, cells)


def _by_server(
    heads: Sequence[str], labels: Mapping[str, str], summary: Summary, cells: Callable[[Summary], list[str]]
) -> str:
    """A row for each server that was measured, and one for each kind of process of the gateway."""
    lines = [f"| server | {' | '.join(heads)} |", f"|---|{'--:|' * len(heads)}"]
    for name, label in labels.items():
        if name in summary:
            lines.append(f"| {label} | {' | '.join(cells(summary[name]))} |")
            lines += _parts(summary[name], columns=len(heads) + 1)
    return "\n".join(lines) + "\n"


def _rate(own: Summary) -> str:
    return f"{own['c32_rate']['median']:,.0f}"


def _range(spread: Mapping[str, float]) -> str:
    return f"{number(spread['median'])} ({number(spread['low'])}-{number(spread['high'])})"


def _added(summary: Summary, own: Summary, kind: str) -> list[str]:
    """Milliseconds on top of the direct way, at the median and at the 99th percentile."""
    if "direct" not in summary:
        return ["", ""]
    figures = (f"{kind}_{share}_us" for share in ("p50", "p99"))
    return [number((own[figure]["median"] - summary["direct"][figure]["median"]) / 1000.0) for figure in figures]


_MODEL_SERVERS = {
    "bare": "bare ASGI + orjson + onnxruntime, nothing checked or kept",
    "gateway": "**this gateway**, everything on",
    "mlserver": "MLServer, custom onnxruntime runtime",
    "bentoml": "BentoML",
    "heavy: bare": "heavier model: bare ASGI + orjson + onnxruntime",
    "heavy: gateway, one by one": "heavier model: **this gateway**, one by one",
    "heavy: gateway, batches": "heavier model: **this gateway**, opportunistic batches",
}


def onnx_table(summary: Summary) -> str:
    """What a model in the process costs, server by server, from the summary of `results/onnx.json`."""

    def cells(own: Summary) -> list[str]:
        return [_range(own["c32_cpu_us"]), _rate(own), number(own["c1_p99_us"]["median"] / 1000.0)]

    heads = "CPU µs a request, c=32: median (range)", "requests/s on one core, c=32", "p99 ms, c=1"
    return _by_server(heads, _MODEL_SERVERS, summary, cells)


def _parts(own: Summary, columns: int) -> list[str]:
    """A row for each kind of process of the gateway."""
    return [
        f"| - its {part} | {_range(own[f'c32_cpu_us_{part}'])} |{' |' * (columns - 2)}"
        for part in ("workers", "control", "supervisor")
        if f"c32_cpu_us_{part}" in own
    ]


def flat_table(summary: Summary) -> str:
    """Cost of a request as other things grow, from the summary of `results/flat.json`."""
    lines = [
        "| varied | CPU µs a request: median (range) | workers | control | requests/s | control idle, % of a core |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, own in summary.items():
        if name != "memory":
            parts = " | ".join(number(own[f"cpu_us_{part}"]["median"]) for part in ("workers", "control"))
            idle = number(own["idle_percent_control"]["median"])
            lines.append(f"| {name} | {_range(own['cpu_us'])} | {parts} | {own['rate']['median']:,.0f} | {idle} |")
    if "memory" in summary:
        own = summary["memory"]
        for part in ("workers", "control"):
            first, half, last = (number(own[f"mb_{part}_{tenth}"]["median"]) for tenth in (1, 5, 10))
            requests = f"{own['requests']['median']:,.0f}"
            told = f"{first} MB after a tenth of {requests} requests, {half} after half, {last} after all."
            lines += ["", f"Memory of the {part}: {told}"]
    return "\n".join(lines) + "\n"


_LLM_PROXIES = {"gateway": "**this gateway**, everything on", "litellm": "LiteLLM proxy, two weighted deployments"}


def openai_table(summary: Summary) -> str:
    """What a chat completion costs, plain and streamed, from the summary of `results/openai.json`."""

    def cells(own: Summary) -> list[str]:
        plain, first = _added(summary, own, "c1"), _added(summary, own, "first")
        return [_range(own["c32_cpu_us"]), _rate(own), *plain, _range(own["chunk_cpu_us"]), *first]

    plain = "CPU µs a plain request, c=32: median (range)", "requests/s on one core", "added ms, c=1: p50", "p99"
    streams = "CPU µs a chunk, 32 streams", "first chunk later by, ms: p50", "p99"
    return _by_server((*plain, *streams), _LLM_PROXIES, summary, cells)


_INGEST = {
    "ship": ("SQLite, live", "facts_per_s"),
    "ship a backlog": ("SQLite, a backlog", "facts_per_s"),
    "postgresql: ship": ("PostgreSQL, live, with the server's time", "facts_per_s_all"),
}
_JOINED = {
    "users return": "users return",
    "users return, outcomes posted": "users return, each request with an outcome",
    "every user new": "every user new, with a vote of three metrics",
    "postgresql: users return": "PostgreSQL: users return",
    "postgresql: every user new": "PostgreSQL: every user new",
}


def ingest_table(summary: Summary) -> str:
    """What facts cost on their way into the store, from the summary of `results/ingest.json`."""
    parts = [_shipping(summary), _joining(summary), _taken_in(summary), _growing(summary)]
    return "\n".join(part for part in parts if part)


def _shipping(summary: Summary) -> str:
    lines = [
        "| facts without an experiment, into | facts/s: median (range) | CPU µs read | recorded | committed |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, (label, rate) in _INGEST.items():
        if own := summary.get(name):
            each = (number(own[f"us_{stage}"]["median"]) for stage in ("read", "record", "commit"))
            lines.append(f"| {label} | {_thousands(own[rate])} | {' | '.join(each)} |")
    return "\n".join(lines) + "\n"


def _joining(summary: Summary) -> str:
    lines = ["| ship, join and fold | CPU µs a request: median (range) | wall µs |", "|---|--:|--:|"]
    for name, label in _JOINED.items():
        if own := summary.get(name):
            lines.append(f"| {label} | {_range(own['us'])} | {number(own['us_wall']['median'])} |")
    return "\n".join(lines) + "\n"


def _taken_in(summary: Summary) -> str:
    lines = [
        "| outcomes through a worker | acknowledged/s, worker and control on one core: median (range) "
        "| worker's CPU µs | control's | p99 ms of a post |",
        "|---|--:|--:|--:|--:|",
    ]
    for level in ("process", "disk"):
        if own := summary.get(f"outcomes, {level}"):
            for how in ("batches", "one_by_one"):
                parts = (number(own[f"{how}_cpu_us_{part}"]["median"]) for part in ("workers", "control"))
                label = f"{'batches of 1000' if how == 'batches' else 'one by one'}, `{level}`"
                p99 = number(own[f"{how}_p99_us"]["median"] / 1000.0)
                lines.append(f"| {label} | {_thousands(own[f'{how}_rate'])} | {' | '.join(parts)} | {p99} |")
    return "\n".join(lines) + "\n"


def _growing(summary: Summary) -> str:
    own = summary.get("growth")
    if not own:
        return ""
    sizes = sorted(int(name.removeprefix("us_wall_")) for name in own if name.startswith("us_wall_"))
    lines = ["| facts in the store | CPU µs a fact: median (range) | wall µs |", "|--:|--:|--:|"]
    lines += [
        f"| {size:,} | {_range(own[f'us_{size}'])} | {number(own[f'us_wall_{size}']['median'])} |" for size in sizes
    ]
    return "\n".join(lines) + "\n"


def _thousands(spread: Mapping[str, float]) -> str:
    return f"{spread['median']:,.0f} ({spread['low']:,.0f}-{spread['high']:,.0f})"


_TABLES = {
    "proxy": proxy_table,
    "flat": flat_table,
    "onnx": onnx_table,
    "openai": openai_table,
    "ingest": ingest_table,
}


def bench_table(name: str) -> str:
    """Table, goals and source of a benchmark, such as proxy, for a README, from its result file."""
    path = RESULTS / f"{name}.json"
    stored = json.loads(path.read_text()) if path.exists() else {}
    if "goals" not in stored:  # or not to the end
        return f"Not measured yet: `make bench ONLY={name}` does it.\n"
    goals = ["| goal | value | limit |", "|---|--:|--:|", *map(goal, stored["goals"])]
    versions = ", ".join(f"{peer} {version}" for peer, version in stored["versions"].items())
    machine = stored["machine"]
    source = (
        f"From `{path.relative_to(ROOT)}` at {stored['revision']}: {machine['cpu']}, {machine['cores']} cores, "
        f"Python {machine['python']}; {versions or 'no peers'}."
    )
    return "\n".join([_TABLES[name](stored["summary"]), *goals, "", source, ""])
