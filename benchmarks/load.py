"""Load from wrk, and what a server's processes paid for it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import LOAD_CORE, BenchmarkError, Tree

USERS = 10_007  # distinct users: a prime, so that no cycle of paths or segments falls into step with them
SCRIPT = Path(__file__).with_name("load.lua")


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is sent: prepared requests in turn, each with the same body."""

    url: str
    body: Path
    targets: Path

    @classmethod
    def write(
        cls, folder: Path, url: str, body: bytes, paths: Iterable[str], headers: Mapping[str, list[str]] | None = None
    ) -> Traffic:
        """Requests of `USERS` users over the paths and the headers' values in turn; files go to the folder."""
        around = list(paths)
        lines = []
        for user in range(USERS):
            fields = [f"{name}: {values[user % len(values)]}" for name, values in (headers or {}).items()]
            lines.append("\t".join([around[user % len(around)], f"x-user-id: user-{user}", *fields]))
        traffic = cls(url, folder / "body", folder / "targets")
        traffic.body.write_bytes(body)
        traffic.targets.write_text("\n".join(lines) + "\n")
        return traffic


@dataclass(frozen=True, slots=True)
class Load:
    """What a load saw. Every answer was 200; latencies are those of kept-alive connections."""

    requests: int
    seconds: float
    p50_us: float
    p99_us: float
    unfinished: int = 0  # requests that were in flight at the end, and paid for

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def wrk(traffic: Traffic, connections: int, seconds: int) -> Load:
    """Run wrk with one thread on its core; raises BenchmarkError if an answer was missing or not 200."""
    command = ["taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--timeout", "30s"]
    command += ["-s", str(SCRIPT), traffic.url, "--", str(traffic.body), str(traffic.targets)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60.0, check=False)
    if done.returncode != 0 or not done.stdout:
        raise BenchmarkError(f"wrk failed against {traffic.url}: {done.stderr or done.stdout}")
    said = json.loads(done.stdout.splitlines()[-1])
    if said["refused"] or said["broken"] or not said["requests"]:
        raise BenchmarkError(f"{traffic.url}: not every answer was 200: {said}")
    return Load(said["requests"], said["seconds"], said["p50_us"], said["p99_us"], connections)


def loaded(tree: Tree, send: Callable[[], Load], settle: Callable[[int], None] = lambda sent: None) -> dict[str, float]:
    """Send, let the server `settle` (write down what it owes), and share its CPU time out over the requests.

    Figures: requests, rate (per second), p50_us, p99_us, cpu_us (per request) and cpu_us_<part> of each part.
    """
    before = tree.cpu_us()
    load = send()
    settle(load.requests)
    after = tree.cpu_us()
    # What was in flight counts as served: nothing to a fast server, and to a slow one's favour.
    served = load.requests + load.unfinished
    parts = {part: (used - before.get(part, 0.0)) / served for part, used in after.items()}
    return {
        "requests": load.requests,
        "rate": load.rate,
        "p50_us": load.p50_us,
        "p99_us": load.p99_us,
        **{f"cpu_us_{part}": used for part, used in parts.items()},
        "cpu_us": sum(parts.values()),
    }
