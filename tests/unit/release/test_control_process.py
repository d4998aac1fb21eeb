"""The control process while its store cannot be used: whose the status pages are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway import control
from gateway.control import _Process
from gateway.control_plane import StoreAway
from gateway.node import ControlSettings
from gateway.telemetry import metrics
from gateway.telemetry.page_set import PageSet
from gateway.telemetry.status_page import StatusPage, Word
from tests.unit.release.configs import experiment, loaded

LABELS = ("rank", "one", "a", "ok")


def test_sums_do_not_fall_where_a_control_plane_has_looked_and_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has folded the pages of the dead: the guard of before knows nothing of that."""
    config = loaded(tmp_path, rank=experiment()).config
    (config.data_dir / "status").mkdir(parents=True)
    settings = ControlSettings(
        config=str(tmp_path / "gateway.yaml"),
        data_dir=str(config.data_dir),
        lifeline=0,
        admin_socket=0,
        metrics_socket=0,
    )
    process = _Process(settings)
    looked = False

    def away(*_: Any) -> Any:
        if looked:
            PageSet(config.data_dir / "status").read()
        raise StoreAway("cannot be reached", config, looked=looked)

    monkeypatch.setattr(control, "started", away)
    assert not process.build()
    guard = process._guard
    assert not process.build()
    assert process._guard is guard, "what the kill rule has seen is kept"
    page = StatusPage(config.data_dir / "status" / "00000007-ff.page")
    page.words[Word.SPOOL] = 7
    page.words[page.slot(metrics.COMPLETIONS.name, LABELS)] = 40
    page.close()  # its worker is gone
    (config.data_dir / "status" / "00000007.end").write_text("SIGKILL")
    looked = True
    assert not process.build()
    pages = process._guard.health.pages  # type: ignore[union-attr]
    assert pages.total((metrics.COMPLETIONS.name, LABELS), pages.read()) == 40
