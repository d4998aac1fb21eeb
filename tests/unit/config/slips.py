"""Slips in an otherwise right config, and where they are."""

from __future__ import annotations

import re

# What is replaced, by what, the key that must be named, words that must be said. `#<` marks the line that
# must be named; where there is none, it is the line of the key, or of what is nearest around it.
Slip = tuple[str, str, str, str]


def line_of(text: str, key: str) -> int:
    """The marked line, or the line of `key` in a file where every key begins a line."""
    lines = text.splitlines()
    if marked := [number for number, line in enumerate(lines, 1) if "#<" in line]:
        return marked[0]
    found = 1
    for step in re.findall(r"[^.\[\]]+", key):
        here = range(found - 1, len(lines))
        if step.isdigit():
            items = [n for n in here if lines[n].lstrip().startswith("- ")]
            found = items[int(step)] + 1
        else:
            found = next((n + 1 for n in here if lines[n].lstrip().startswith(f"{step}:")), found)
    return found
