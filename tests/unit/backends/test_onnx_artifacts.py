"""Model files on disk: only those below the allowed folders, and copies that nobody replaces."""

from __future__ import annotations

import stat
import struct
from pathlib import Path

import pytest

from gateway.backends.onnx import ModelError, confined, digest, inspect, keep, kept_path, load, prune, verified
from gateway.backends.onnx import artifacts as module
from gateway.backends.onnx.external import external_data
from tests.unit.backends import tiny_onnx
from tests.unit.backends.models import FLIGHT_DELAY


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_onnx.largest(tmp_path / "m.onnx")


def test_a_copy_is_named_by_its_digest_and_private(model: Path, kept: Path) -> None:
    copy = keep(model, kept)
    assert copy == kept_path(kept, digest(model)) == kept / f"{digest(model)}.onnx"
    assert copy.read_bytes() == model.read_bytes()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert list(kept.iterdir()) == [copy]


def test_what_is_kept_outlives_the_file(model: Path, kept: Path) -> None:
    copy = keep(model, kept)
    before = digest(model)
    tiny_onnx.logarithm(model)
    assert digest(copy) == before
    assert keep(model, kept) != copy


def test_a_copy_that_is_there_is_used_again(model: Path, kept: Path) -> None:
    first = keep(model, kept).stat()
    second = keep(model, kept).stat()
    assert (second.st_ino, second.st_mtime_ns) == (first.st_ino, first.st_mtime_ns)


@pytest.mark.parametrize("damage", [b"", b"shorter"])
def test_a_damaged_copy_is_replaced(model: Path, kept: Path, damage: bytes) -> None:
    copy = keep(model, kept)
    copy.write_bytes(damage or bytes(copy.stat().st_size))
    assert digest(keep(model, kept)) == digest(model)


def test_a_pin_that_does_not_match_names_both_digests(model: Path, kept: Path) -> None:
    pinned, found = "ab" * 32, digest(model)
    for refused in (lambda: keep(model, kept, pinned), lambda: verified(model, pinned)):
        with pytest.raises(ModelError, match=rf"m\.onnx: has sha256 {found}, expected {pinned}"):
            refused()
    assert not kept.exists()
    assert verified(model, found) == found


def test_a_file_replaced_while_it_is_copied_is_refused(
    model: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "verified", lambda path, expected: "00" * 32)
    with pytest.raises(ModelError, match=r"m\.onnx: was replaced while it was copied"):
        keep(model, kept)
    assert list(kept.iterdir()) == []


def test_a_file_emptied_while_it_is_looked_into_is_kept_as_it_was(
    model: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def emptied(path: Path, *more: Path) -> set[str]:
        model.write_bytes(b"")
        return external_data(path, *more)

    before = digest(model)
    monkeypatch.setattr(module, "external_data", emptied)
    assert digest(keep(model, kept)) == before


def test_a_directory_that_cannot_be_written_is_named(model: Path, kept: Path) -> None:
    kept.write_bytes(b"a file where the folder should be")
    with pytest.raises(ModelError, match=r"m\.onnx: cannot be kept in .*kept"):
        keep(model, kept)


def test_pruning_leaves_what_is_needed(model: Path, tmp_path: Path, kept: Path) -> None:
    needed = keep(model, kept)
    useless = keep(tiny_onnx.logarithm(tmp_path / "other.onnx"), kept)
    torn = kept / ".abc.0123.new"
    torn.write_bytes(b"half a mod")
    assert set(prune(kept, {digest(model)})) == {useless, torn}
    assert list(kept.iterdir()) == [needed]
    assert prune(kept, {digest(model)}) == []


def test_a_path_below_a_root_is_followed(tmp_path: Path, model: Path) -> None:
    link = tmp_path / "current.onnx"
    link.symlink_to(model)
    assert confined(link, [tmp_path / "elsewhere", tmp_path]) == model.resolve()


@pytest.mark.parametrize("way_out", ["link", "dots", "absolute", "folder"])
def test_no_way_leads_out_of_the_roots(tmp_path: Path, model: Path, way_out: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(model)
    (root / "folder").symlink_to(tmp_path)
    path = {
        "link": root / "link",
        "dots": root / ".." / "m.onnx",
        "absolute": model,
        "folder": root / "folder" / "m.onnx",
    }[way_out]
    with pytest.raises(ModelError, match=r"is not below .*root, where models may lie"):
        confined(path, [root])


def test_a_name_that_only_begins_like_the_root_is_outside(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not below"):
        confined(tmp_path / "models-of-others" / "m.onnx", [tmp_path / "models"])


def test_links_in_a_circle_are_a_model_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(ModelError, match="cannot be followed"):
        confined(tmp_path / "a", [tmp_path])


def test_a_model_with_weights_beside_it_is_served_in_place(tmp_path: Path, kept: Path) -> None:
    path = tiny_onnx.with_outside_weights(tmp_path / "m.onnx", "m.weights")
    (tmp_path / "m.weights").write_bytes(struct.pack("<f", 2.0))
    assert external_data(path) == {"m.weights"}
    assert keep(path, kept) == path
    model = load(path, digest(path))
    model.close()


@pytest.mark.parametrize("location", ["missing.weights", "../m.weights", "{there}/m.weights"])
def test_weights_that_lie_elsewhere_are_refused(tmp_path: Path, kept: Path, location: str) -> None:
    (tmp_path / "m.weights").write_bytes(struct.pack("<f", 2.0))
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "m.onnx"
    tiny_onnx.with_outside_weights(path, location.format(there=tmp_path))
    with pytest.raises(ModelError, match="weights are expected beside it"):
        keep(path, kept)
    with pytest.raises(ModelError, match=r"m\.onnx: cannot be loaded"):
        inspect(path)


@pytest.mark.parametrize("name", ["logistic", "boosted", "crashing"])
def test_models_in_one_piece_name_no_other_file(name: str) -> None:
    assert external_data(FLIGHT_DELAY / f"{name}.onnx") == set()


@pytest.mark.parametrize("content", [b"", b"no protobuf", b"\x3a\x7f", b"\x3a" + b"\xff" * 12])
def test_what_is_no_model_is_a_model_error(tmp_path: Path, kept: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.onnx: is no ONNX model"):
        keep(path, kept)
