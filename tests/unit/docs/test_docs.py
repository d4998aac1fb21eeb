"""Documents fail when they lie: metrics, verbs, make targets, files and requests named in them exist as described."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click import Group

from benchmarks import tables
from benchmarks.bench_tables import bench_table
from benchmarks.stats_common import Measured
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
    rows = re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([\w-]+)`", row)}
    assert isinstance(main, Group)
    assert named == set(main.commands)


def test_every_verb_that_a_document_names_exists() -> None:
    assert isinstance(main, Group)
    for document in (ROOT / "README.md", *(ROOT / "gateway").rglob("*.md"), *(ROOT / "tests").glob("*.md")):
        named = set(re.findall(r"`gateway ([a-z][a-z-]*)", document.read_text()))
        assert named <= set(main.commands), document


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


@pytest.mark.parametrize(
    "document", ["README.md", "gateway/README.md", "gateway/stats/README.md", "models/README.md", "tests/README.md"]
)
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
    request = oip.Codec("flight-delay", signature, 1 << 20).parse(body.encode(), {})
    assert request.inputs["features"].shape == (1, 16)


def test_the_table_of_endings_is_the_one_that_the_results_give() -> None:
    assert tables.endings_table() in README
    assert "| `better` | promote |" in tables.endings_table()


def test_the_table_of_the_statistics_is_the_one_that_the_results_give() -> None:
    shown = README.split("<!-- statistics:start -->\n")[1].split("<!-- statistics:end -->")[0]
    assert shown == tables.statistics_table()


def test_the_table_of_the_traps_is_the_one_that_the_results_give() -> None:
    page = (ROOT / "tests" / "statistical" / "README.md").read_text()
    shown = page.split("<!-- traps:start -->\n")[1].split("<!-- traps:end -->")[0]
    assert shown == tables.traps_table()


@pytest.mark.parametrize("name", ["proxy", "onnx", "openai", "flat", "ingest", "growth"])
def test_the_table_of_a_benchmark_is_the_one_that_the_results_give(name: str) -> None:
    shown = README.split(f"<!-- {name}:start -->\n")[1].split(f"<!-- {name}:end -->")[0]
    assert shown == (tables.growth_table() if name == "growth" else bench_table(name))
    assert "Not measured yet" not in shown


@pytest.mark.parametrize("name", ["fuzz", "soak", "slow", "crowded", "kills", "outage", "cluster"])
def test_the_table_of_a_long_proof_is_the_one_that_the_results_give(name: str) -> None:
    page = (ROOT / "tests" / "README.md").read_text()
    shown = page.split(f"<!-- {name}:start -->\n")[1].split(f"<!-- {name}:end -->")[0]
    assert shown == (tables.fuzz_table() if name == "fuzz" else tables.goals_table(name))


def test_without_results_the_table_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert tables.statistics_table() == "Not measured yet: `make prove` does it.\n"
    assert tables.fuzz_table() == tables.goals_table("slow") == tables.statistics_table()


def test_the_tables_of_long_proofs_show_the_last_goals_what_was_missed_and_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met, missed = (Measured("slow", what, value, 2.0, 3).record() for what, value in (("early", 1.0), ("late", 2.5)))
    slow = {"heads/1/with": {"p99_ms": 1.0}, "goals of 2 rounds": {"goals": [met]}, "goals": {"goals": [met, missed]}}
    found = {"tests": {"test_a": 1, "test_b": 1_200}, "examples": 1_201, "seconds": 9.6, "pass": False}
    for name, cases in (("slow", slow), ("fuzz", {"test_config_file": found})):
        (tmp_path / f"{name}.json").write_text(json.dumps({"revision": "abc", "cases": cases}))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    assert "| early | 1 | ≤ 2 |\n| late | **2.5, missed** | ≤ 2 |\n\nFrom `slow.json` at abc." in tables.goals_table(
        "slow"
    )
    assert "| config file | 2 | 1,201 | 10 | **a failure** |" in tables.fuzz_table()


def test_the_table_shows_the_worst_cell_what_missed_its_limit_and_what_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def record(goal: str, value: float, limit: float, detail: dict[str, object]) -> dict[str, object]:
        return {**Measured(goal, "what", value, limit, 10_000, detail=detail).record(), "seconds": 60.0}

    rivals = {"D1": 0.03, "peeked z-test": 0.4}
    cases = {
        "G1/binary .1/0.5": [record("G1", 0.0271, 0.0551, {})],
        "G1/binary .1/ramp": [record("G1", 0.0412, 0.0551, {})],
        "G4/effect": [record("G4", 0.9, 0.85, {"mean units": {"D1": 12_345.6, "peeked z-test": 5000.0}})],
        "G4/equal": [record("G4", 0.03, 0.0551, {"split 50%": rivals})],
    }
    machine = {"cpu": "some cpu", "cores": 2, "python": "3.11"}
    document = {"revision": "abc", "machine": machine, "cases": cases}
    (tmp_path / "statistics.json").write_text(json.dumps(document))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    table = tables.statistics_table()
    assert "worst of 2 cases | 0.0412 | ≤ 0.0551 | 10,000 |" in table
    assert "| 0.0271 | ≥ 0.01 | 10,000 |" in table
    assert "| G4 | what | **0.9, missed** | ≤ 0.85 | 10,000 |" in table
    assert "| **the gateway's** | 12,346 | 0.03 |" in table
    assert "| peeked z-test | 5,000 | 0.4 |" in table
    assert "Not measured yet: `G1/binary .01/0.01`, " in table
    assert "at abc: 4 minutes of one core, some cpu, 2 cores, Python 3.11." in table
