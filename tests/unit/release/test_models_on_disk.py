"""Model files that disappear, change or do not fit: found when a config is taken, harmless in between."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.onnx import confined, digest
from gateway.config.load import LoadedConfig
from gateway.errors import ConfigError
from gateway.release.artifacts import Artifacts
from gateway.release.models import check_models
from gateway.telemetry.status_page import Word
from tests.unit.release.configs import MODELS, copied, experiment, loaded
from tests.unit.release.rig import Rig, Rigs


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def endpoint(folder: Path) -> dict[str, Any]:
    found = experiment() | {"protocol": "oip"}
    for name, model in (("a", "logistic"), ("b", "boosted")):
        variant = found["variants"][name]
        variant["onnx"] = str(copied(folder, name, model))
        del variant["url"]
    return found


@pytest.fixture
def rig(rigs: Rigs, tmp_path: Path) -> Rig:
    return rigs(endpoint=endpoint(tmp_path))


def digests(rig: Rig) -> dict[str, str]:
    return {variant.name: variant.digest for variant in rig.plan.endpoints[0].variants}


def test_a_rollback_needs_no_files(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "b.onnx").unlink()
    (tmp_path / "a.onnx").unlink()
    rig.failures("b", 0, 5)
    rig.tick()
    assert rig.status == "rolled_back"
    assert rig.split == {"a": 1.0}
    assert rig.sqlite.quarantined("rank", digests(rig)["b"]) == "one"


def test_a_promotion_brings_in_the_file_that_was_tested(rig: Rig, tmp_path: Path) -> None:
    before = digests(rig)
    copied(tmp_path, "b", "twin")
    rig.control.command("rank", "promote", "ada", "")
    assert digests(rig) == before


def test_a_file_changed_in_mid_run_is_refused_and_not_taken_in_by_the_back_door(rig: Rig, tmp_path: Path) -> None:
    before = digests(rig)
    copied(tmp_path, "b", "twin")
    with pytest.raises(ConfigError, match="the challenger's model may not change"):
        rig.control.take(rig.load())
    rig.control.command("rank", "promote", "ada", "")
    assert digests(rig) == before


def test_an_unchanged_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Artifacts()
    path = copied(tmp_path, "a", "logistic")
    known = first.read(path)
    monkeypatch.setattr("gateway.release.artifacts.inspect", lambda _: pytest.fail("read again"))
    assert Artifacts(first).read(path) == known


def test_a_link_that_is_turned_after_the_look_leads_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, inside, outside = tmp_path / "a.onnx", copied(tmp_path, "v1", "logistic"), copied(tmp_path, "v2", "twin")
    found = endpoint(tmp_path)
    link.unlink()
    link.symlink_to(inside)
    config = loaded(tmp_path, rank=found)

    def turned(path: Path, roots: Sequence[Path]) -> Path:
        place = confined(path, roots)
        if path == link:
            link.unlink()
            link.symlink_to(outside)
        return place

    monkeypatch.setattr("gateway.release.models.confined", turned)
    artifacts = Artifacts()
    check_models(config, artifacts)
    assert artifacts.digest(config.config.endpoints["rank"].variants["a"]) == digest(inside)
    assert artifacts.changed() == [link]


def copies(rig: Rig) -> set[str]:
    return {path.stem for path in (rig.data / "models").glob("*.onnx")}


def test_workers_load_copies_that_nobody_replaces(rig: Rig, tmp_path: Path) -> None:
    (served,) = {variant.onnx for variant in rig.plan.endpoints[0].variants if variant.name == "b"}
    copied(tmp_path, "b", "twin")
    assert served == str(rig.data / "models" / f"{digests(rig)['b']}.onnx")
    assert digest(Path(served)) == digests(rig)["b"] == digest(MODELS / "boosted.onnx")
    assert rig.control.artifacts.changed() == [tmp_path / "b.onnx"]


def test_a_copy_that_was_lost_is_made_again(rig: Rig) -> None:
    for path in (rig.data / "models").iterdir():
        path.unlink()
    rig.control.take(rig.load())
    assert copies(rig) == set(digests(rig).values())


def test_copies_go_when_neither_the_plan_nor_a_worker_needs_them(rig: Rig, tmp_path: Path) -> None:
    before = copies(rig)
    rig.control.command("rank", "rollback", "ada", "")
    copied(tmp_path, "b", "twin")
    rig.control.take(rig.load())
    rig.control.prune()
    assert copies(rig) > before, "the worker has not taken the plan yet"
    rig.page.words[Word.PLAN_REVISION] = rig.plan.revision
    rig.tick(0.1)
    rig.control.prune()
    assert copies(rig) == {digest(MODELS / "logistic.onnx"), digest(MODELS / "twin.onnx")}


def problems(config: LoadedConfig) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check_models(config, Artifacts())
    return [f"{problem.key}: {problem.message}" for problem in caught.value.problems]


def test_files_that_cannot_be_served_are_all_named(tmp_path: Path) -> None:
    config = loaded(tmp_path, rank=endpoint(tmp_path), other=experiment("two"))
    check_models(config, Artifacts())
    (tmp_path / "a.onnx").unlink()
    (tmp_path / "b.onnx").write_bytes(b"no model")
    missing, damaged = problems(config)
    assert missing.startswith("endpoints.rank.variants.a.onnx: ")
    assert "No such file" in missing
    assert damaged.startswith("endpoints.rank.variants.b.onnx: ")
    assert "cannot be loaded" in damaged


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (None, ""),
        ("probability", ""),
        ("probability[0]", ""),
        ("[0]", ""),
        ("label[0]", "expected an output of the models (probability), found 'label'"),
        ("[1]", "expected an element of probability: FP32[-1, 1] below 1, found [1]"),
    ],
)
def test_what_is_scored_is_in_the_answer(tmp_path: Path, prediction: str | None, message: str) -> None:
    scored = endpoint(tmp_path)
    score = {"type": "score", "direction": "decrease", "source": "outcome", "window": "1m"}
    scored["metrics"]["score"] = score if prediction is None else score | {"prediction": prediction}
    config = loaded(tmp_path, rank=scored)
    if not message:
        check_models(config, Artifacts())
        return
    assert problems(config) == [f"endpoints.rank.metrics.score.prediction: {message}"]


def test_what_does_not_fit_is_shown_with_its_line(tmp_path: Path) -> None:
    config = loaded(tmp_path, rank=endpoint(tmp_path))
    (tmp_path / "b.onnx").write_bytes(b"no model")
    with pytest.raises(ConfigError) as caught:
        check_models(config, Artifacts())
    (problem,) = caught.value.problems
    line = config.text.decode().splitlines()[problem.line - 1]
    assert f"onnx: {tmp_path / 'b.onnx'}" in line
    assert problem.column


def lines(config: LoadedConfig) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check_models(config, Artifacts())
    text = config.text.decode().splitlines()
    return [f"{text[problem.line - 1].strip()} <- {problem.message}" for problem in caught.value.problems]


def test_a_pinned_file_is_that_file(tmp_path: Path) -> None:
    pinned = endpoint(tmp_path)
    pinned["variants"]["a"]["sha256"] = digest(MODELS / "logistic.onnx")
    check_models(loaded(tmp_path, rank=pinned), Artifacts())
    copied(tmp_path, "a", "twin")
    (problem,) = problems(loaded(tmp_path, rank=pinned))
    assert problem == (
        f"endpoints.rank.variants.a.sha256: expected the digest of {tmp_path / 'a.onnx'},"
        f" which is {digest(MODELS / 'twin.onnx')}"
    )


def test_models_lie_below_folders_that_the_config_names(tmp_path: Path) -> None:
    (folder := tmp_path / "one" / "two").mkdir(parents=True)
    outside = endpoint(tmp_path)
    (first, second) = lines(loaded(folder, rank=outside))
    assert first.startswith("a: {onnx: ")
    assert f"a.onnx: is not below {folder} or {folder.parent}" in first
    assert "model_roots can name more folders" in second


def test_a_link_must_not_lead_out(tmp_path: Path) -> None:
    (folder := tmp_path / "one" / "two").mkdir(parents=True)
    linked = endpoint(folder)
    (folder / "b.onnx").unlink()
    (folder / "b.onnx").symlink_to(copied(tmp_path, "b", "boosted"))
    (problem,) = problems(loaded(folder, rank=linked))
    assert f"b.onnx: leads to {tmp_path / 'b.onnx'}, which is not below" in problem
