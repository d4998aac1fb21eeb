"""Documents fail when they lie: metrics, verbs, make targets, files and requests named in them exist as described."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click import Group

from benchmarks import prove
from gateway.backends.onnx import inspect
from gateway.cli import main
from gateway.serving import oip
from gateway.telemetry.metrics import CONTROL_METRICS, WORKER_METRICS

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
MAP = (ROOT / "gateway" / "README.md").read_text()


def test_every_metric_is_documented_with_its_labels_and_meaning() -> None:
    rows = {
        f"| `{metric.name}{'_total' if metric.kind == 'counter' else ''}` | {metric.kind} | "
        f"{', '.join(f'`{label}`' for label in metric.labels)} | {metric.help} |"
        for metric in (*WORKER_METRICS.values(), *CONTROL_METRICS)
    }
    documented = {line for line in MAP.splitlines() if line.startswith("| `gateway_")}
    assert documented == rows


def test_every_verb_is_in_the_readme_and_no_other() -> None:
    table = README.split("### The command line")[1].split("###")[0]
    named = {name for row in re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert isinstance(main, Group)
    assert named == set(main.commands)


def test_every_option_used_in_the_readme_exists() -> None:
    assert isinstance(main, Group)
    for verb, rest in re.findall(r"^\.venv/bin/gateway (\w+)(.*)$", README, re.MULTILINE):
        options = {option for parameter in main.commands[verb].params for option in parameter.opts}
        used = set(re.findall(r"--[a-z-]+", rest.split("#")[0]))
        assert used <= options, (verb, used - options)


def test_every_make_target_used_in_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = set(re.findall(r"^make ([a-z]+)", README, re.MULTILINE))
    assert {"demo", "test", "prove"} <= used <= targets


@pytest.mark.parametrize("document", ["README.md", "gateway/README.md", "gateway/stats/README.md", "models/README.md"])
def test_every_relative_link_leads_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_the_map_names_every_room() -> None:
    rooms = {
        path.name + ("/" if path.is_dir() else "")
        for path in (ROOT / "gateway").iterdir()
        if (path.is_dir() and (path / "__init__.py").exists()) or (path.suffix == ".py" and path.stem != "__init__")
    }
    for room in rooms:
        assert f"`{room}`" in MAP or f" {room} " in MAP, room


def test_the_request_in_the_readme_fits_the_model() -> None:
    signature = inspect(ROOT / "models" / "flight_delay" / "logistic.onnx")
    body = README.split("-d '")[1].split("'\n")[0]
    assert json.loads(body)["inputs"]
    request = oip.parse(body.encode(), signature)
    assert request.inputs["features"].shape == (1, 16)


def test_the_table_of_endings_is_the_one_that_the_results_give() -> None:
    assert prove.table() in README
    assert "| `better` | promote |" in prove.table()
