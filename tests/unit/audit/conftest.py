from __future__ import annotations

from tests.unit.evidence.conftest import world, worlds
from tests.unit.release.conftest import rig, rigs

__all__ = ["rig", "rigs", "world", "worlds"]
