"""Result files of long runs: JSON that names the revision and the machine, grows case by case, and can be resumed."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
Case = dict[str, Any]
Value = TypeVar("Value", bound=Case | list[Case])


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


def digest(patterns: Iterable[str]) -> str:
    """SHA-256 over the names and contents of the files that match the patterns."""
    total = hashlib.sha256()
    for path in sorted(path for pattern in patterns for path in ROOT.glob(pattern)):
        content = path.read_bytes()
        total.update(f"{path.relative_to(ROOT)} {len(content)}\n".encode() + content)
    return total.hexdigest()


@dataclass(slots=True)
class ResultsFile(Generic[Value]):
    """One proof's results. Cases of another program are dropped: figures of two programs are never mixed.

    Another program is another revision; where ``code`` names the files on which the figures depend (patterns from the
    root), it is other contents of these, and ``revision`` is the last one that added a case.
    """

    name: str
    code: tuple[str, ...] = ()
    cases: dict[str, Value] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)  # what else the document says: method, versions, summary
    kept: bool = True  # whether anything is written

    @property
    def path(self) -> Path:
        return RESULTS / f"{self.name}.json"

    def load(self) -> None:
        if self.path.exists():
            stored = json.loads(self.path.read_text())
            mine = self._program()
            if all(stored.get(name) == mine[name] for name in (("code",) if self.code else ("revision",))):
                self.cases = stored["cases"]

    def run(
        self, keys: Iterable[str], measure: Callable[[str], Value], say: Callable[[str], None], jobs: int = 1
    ) -> None:
        """Measure what is not there yet, saving after every case; with ``jobs`` in that many processes."""
        wanted = list(keys)
        missing = [key for key in wanted if key not in self.cases]
        program = self._program()  # of what was imported, not of what the tree holds an hour later

        def done(key: str, case: Value) -> None:
            self.cases[key] = case
            self.save(program)
            left = sum(key not in self.cases for key in wanted)
            say(f"{self.name}: {len(wanted) - left}/{len(wanted)} {key}: {json.dumps(case)[:150]}")

        if jobs == 1:
            for key in missing:
                done(key, measure(key))
            return
        with ProcessPoolExecutor(jobs) as pool:
            futures = {pool.submit(measure, key): key for key in missing}
            for future in as_completed(futures):
                done(futures[future], future.result())

    def _program(self) -> dict[str, Any]:
        named: dict[str, Any] = {"revision": revision()}
        if self.code:
            named["code"] = {"files": list(self.code), "sha256": digest(self.code)}
        return named

    def save(self, program: dict[str, Any]) -> None:
        if not self.kept:
            return
        RESULTS.mkdir(exist_ok=True)
        document = {"proof": self.name, **program, "machine": machine(), **self.about, "cases": self.cases}
        temporary = self.path.with_suffix(".new")
        temporary.write_text(json.dumps(document, indent=1) + "\n")
        temporary.replace(self.path)


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
