"""A challenger that fails in front of real clients: they see answers, it loses its traffic within two seconds."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from tests.integration.process.conftest import EXPERIMENT, HEAD
from tests.integration.process.node import Load, running, wait_for

pytestmark = pytest.mark.process


@pytest.mark.parametrize("seed", range(2))
def test_a_crashing_challenger_is_rolled_back_within_two_seconds_of_the_deciding_answer(
    tmp_path: Path, seed: int
) -> None:
    config = tmp_path / "gateway.yaml"
    # Another experiment id is another salt: another draw of the split.
    text = (HEAD + EXPERIMENT).replace("boosted.onnx", "crashing.onnx")
    config.write_text(text.replace("id: boosted-vs-logistic", f"id: crashing-{seed}"))
    with running(config, workers=2) as node:
        with Load(node) as load:
            wait_for(lambda: node.status()["endpoints"]["flight-delay"]["status"] == "rolled_back", "the rollback", 30)
            wait_for(node.converged, "every worker on the new plan")
            at_zero = time.time()
            load.more(50)
        assert load.failures() == {}
        rows = node.client.get(node.url("admin", "/api/decisions")).json()["decisions"]
        failures = _failures(tmp_path / "data" / "gateway.db", rows[-1]["at"])
        assert rows[-1]["kind"] == "rollback"
        assert len(failures) >= 3
        assert at_zero - failures[-1] / 1e6 < 2.0
        assert node.total("gateway_fallbacks_total") == node.total(
            'gateway_attempt_errors_total{endpoint="flight-delay"'
        )


def _failures(path: Path, before: int) -> list[int]:
    """When the challenger failed, up to the decision, in microseconds."""
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        rows = database.execute(
            "SELECT c.at FROM completion c JOIN request r USING (decision)"
            " WHERE r.variant = 'boosted' AND c.error <> '' AND c.served = 'logistic' AND c.at <= ? ORDER BY c.at",
            (before,),
        ).fetchall()
    finally:
        database.close()
    return [at for (at,) in rows]
