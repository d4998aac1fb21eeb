from __future__ import annotations

from tests.unit.evidence.conftest import world, worlds

__all__ = ["world", "worlds"]
