"""The fuzzing of tests/fuzz for a set time, with new cases in every round. A part of `prove`.

A round that fails ends its module: the case holds what pytest said, and the seed that finds it again.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import time
from collections import Counter

from benchmarks.results_file import ROOT, Case

FOLDER = ROOT / "tests" / "fuzz"
MODULES = sorted(path.stem for path in FOLDER.glob("test_*.py"))
CODE = ("gateway/**/*.py", "tests/fuzz/*.py")
EXAMPLES = 300  # of each test in one round
_TEST = re.compile(r"^tests/fuzz/\w+\.py::(\w+)\S*:$")
_COUNT = re.compile(r"^\s+- (\d+) passing\b")


def measure(module: str, seconds: float) -> Case:
    """Rounds of one module until the time is over."""
    began = time.monotonic()
    examples: Counter[str] = Counter()
    seeds: list[int] = []
    failure = ""
    while not failure and (not seeds or time.monotonic() - began < seconds):
        seeds.append(secrets.randbelow(1 << 32))
        failure = _round(module, seeds[-1], examples)
    return {
        "pass": not failure,
        "seconds": round(time.monotonic() - began, 1),
        "examples": sum(examples.values()),
        "tests": dict(sorted(examples.items())),
        "seeds": seeds,
        "failure": failure,
    }


def _round(module: str, seed: int, examples: Counter[str]) -> str:
    """Counts the examples of each test; returns what went wrong, "" if nothing did."""
    command = [sys.executable, "-m", "pytest", str(FOLDER / f"{module}.py"), "-q", "--tb=short", "--timeout=0"]
    command += ["-p", "no:cacheprovider", "--hypothesis-show-statistics", f"--hypothesis-seed={seed}"]
    environment = {**os.environ, "FUZZ_PROFILE": "long", "FUZZ_EXAMPLES": str(EXAMPLES)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    test = ""
    for line in done.stdout.splitlines():
        if found := _TEST.match(line):
            test = found[1]
        elif found := _COUNT.match(line):
            examples[test] += int(found[1])
    return "" if done.returncode == 0 else (done.stdout + done.stderr)[-20_000:]
