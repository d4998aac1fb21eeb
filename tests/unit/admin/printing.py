"""Views as a terminal shows them."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console


def printed(view: Any) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(view)
    written: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in written.splitlines())
