"""The keys of a node that was alone, and those that its config gives it later."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from gateway.errors import StoreError
from gateway.release.keys import Keys, expect_own, given, load_or_create

OTHER = "5" * 64


@pytest.fixture
def own(tmp_path: Path) -> tuple[Path, Keys]:
    path = tmp_path / "keys.json"
    return path, load_or_create(path)


def test_keys_that_a_node_has_made_are_found_again(own: tuple[Path, Keys]) -> None:
    path, keys = own
    assert load_or_create(path) == keys
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_node_goes_on_with_its_own_keys_from_the_config(
    own: tuple[Path, Keys], caplog: pytest.LogCaptureFixture
) -> None:
    path, keys = own
    expect_own(path, given([keys.signing[0].secret], keys.pepper.upper()))
    expect_own(path, given([OTHER, keys.signing[0].secret], keys.pepper))
    expect_own(path.with_name("new.json"), given([OTHER], OTHER))
    assert caplog.records == []


def test_another_pepper_is_refused_with_the_way_out(own: tuple[Path, Keys]) -> None:
    path, keys = own
    with pytest.raises(StoreError, match=rf"another pepper.*`gateway keys --of {path.parent}`"):
        expect_own(path, given([keys.signing[0].secret], OTHER))


def test_another_signing_key_is_told(own: tuple[Path, Keys], caplog: pytest.LogCaptureFixture) -> None:
    path, keys = own
    with caplog.at_level(logging.WARNING):
        expect_own(path, given([OTHER], keys.pepper))
    assert "outcomes by tokens that it has signed are refused" in caplog.text


def test_a_damaged_file_is_named(own: tuple[Path, Keys]) -> None:
    path, keys = own
    path.write_text("{")
    with pytest.raises(StoreError, match=r"keys\.json: cannot be read"):
        expect_own(path, keys)
