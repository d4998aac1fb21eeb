"""`retention`: how long requests are kept in the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.changes import diff, needs_restart
from gateway.config.load import load
from gateway.config.schema import Config
from gateway.errors import ConfigError
from tests.unit.release.configs import fixed, write


def taken(folder: Path, more: str = "") -> Config:
    path = write(folder, rank=fixed(a="100%"))
    path.write_text(path.read_text() + more)
    return load(path).config


def test_requests_are_kept_for_a_week_unless_somebody_says_otherwise(tmp_path: Path) -> None:
    assert taken(tmp_path).retention.requests == 7 * 86_400.0
    assert taken(tmp_path, "retention: {requests: 36h}\n").retention.requests == 36 * 3600.0


def test_it_may_be_changed_while_the_gateway_runs(tmp_path: Path) -> None:
    before, after = taken(tmp_path), taken(tmp_path, "retention: {requests: 1h}\n")
    assert diff(before, after) == ["retention.requests: 7d -> 1h"]
    assert needs_restart(before, after) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("retention: {requests: 59m}", "retention.requests: expected"),
        ("retention: {requests: 7}", "retention.requests: "),
        ("retention: {outcomes: 7d}", "retention.outcomes: unknown key"),
    ],
)
def test_what_cannot_be_is_refused_at_its_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        taken(tmp_path, f"{text}\n")
