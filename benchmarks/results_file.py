"""Result files of long runs: JSON that names the revision and the machine, grows case by case, and can be resumed."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
Case = dict[str, Any]


def revision() -> str:
    """The commit that is measured; `+` behind it says that the tree differed from it (result files apart)."""
    head = _git("rev-parse", "HEAD")
    changed = [line for line in _git("status", "--porcelain").splitlines() if "benchmarks/results" not in line]
    return head[:12] + ("+" if changed else "")


def machine() -> dict[str, Any]:
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {"cpu": model, "cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}


@dataclass(slots=True)
class ResultsFile:
    """One proof's results. Cases of another revision are dropped: figures of two programs are never mixed."""

    name: str
    cases: dict[str, Case] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return RESULTS / f"{self.name}.json"

    def load(self) -> None:
        if self.path.exists():
            stored = json.loads(self.path.read_text())
            if stored["revision"] == revision():
                self.cases = stored["cases"]

    def run(self, keys: Iterable[str], measure: Callable[[str], Case], say: Callable[[str], None]) -> None:
        """Measure what is not there yet, saving after every case."""
        wanted = list(keys)
        for number, key in enumerate(wanted, 1):
            if key not in self.cases:
                self.cases[key] = measure(key)
                self.save()
            say(f"{self.name}: {number}/{len(wanted)} {key}: {json.dumps(self.cases[key])[:150]}")

    def save(self) -> None:
        RESULTS.mkdir(exist_ok=True)
        document = {"proof": self.name, "revision": revision(), "machine": machine(), "cases": self.cases}
        temporary = self.path.with_suffix(".new")
        temporary.write_text(json.dumps(document, indent=1) + "\n")
        temporary.replace(self.path)


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
