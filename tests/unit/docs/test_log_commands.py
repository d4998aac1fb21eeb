"""What the README says of getting the log out is what these commands and this notebook do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
import pytest

from gateway.config.load import load
from tests.postgres import PostgresServer, postgres
from tests.unit.export.logs import Logged, make_log
from tests.unit.export.receiver import Receiver

__all__ = ["postgres"]

ROOT = Path(__file__).parents[3]
SECTION = (ROOT / "README.md").read_text().split("### Getting the log out")[1].split("\n## ")[0]


def commands(verb: str) -> list[str]:
    found = re.findall(rf"^\.venv/bin/gateway {verb} (.*)$", SECTION, re.MULTILINE)
    return [line.split("  # ")[0] for line in found]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Logged]:
    """A gateway's folder with the README's config, and a log in its data directory."""
    (tmp_path / "config").mkdir()
    (tmp_path / "models").symlink_to(ROOT / "models")
    config = tmp_path / "config" / "flight-delay.yaml"
    config.write_bytes((ROOT / "config" / "flight-delay.yaml").read_bytes())
    made = make_log(load(config).config.store_path.parent)
    yield made
    made.world.close()


def run(folder: Path, command: str, **replaced: str) -> str:
    for said, meant in replaced.items():
        assert said in command
        command = command.replace(said, meant)
    environment = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euc", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def as_typed(verb: str, rest: str) -> str:
    return f"{sys.executable} -m gateway.cli {verb} {rest}"


def test_export(log: Logged, tmp_path: Path) -> None:
    for command in commands("export"):
        run(tmp_path, as_typed("export", command))
    manifest = json.loads((tmp_path / "log" / "manifest.json").read_bytes())
    number = log.rows("SELECT count(*) FROM assignment")[0][0]
    assert manifest["tables"]["exposures"]["rows"] == number
    tables = {path.name.split("-")[0].split(".")[0] for path in (tmp_path / "log-parquet").glob("*.parquet")}
    assert tables == {"exposures", "outcomes", "decisions"}
    rows = sum(pyarrow.parquet.read_metadata(p).num_rows for p in (tmp_path / "log-parquet").glob("exposures-*"))
    assert rows == number


def test_notebook(log: Logged, tmp_path: Path) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    (tmp_path / "cell.py").write_text(
        script.replace("boosted-vs-logistic", "exp") + "    print(report._repr_html_())\n"
    )
    said = run(tmp_path, f"{sys.executable} -W error cell.py")
    assert re.search(r"b +JFK", said)
    assert "<table>" in said


def test_outbox(log: Logged, tmp_path: Path) -> None:
    to_lake, to_files, to_broker = commands("outbox")
    number = sum(log.rows(f"SELECT count(*) FROM {name}")[0][0] for name in ("assignment", "outcome", "ledger"))
    (tmp_path / "token").write_text("secret")
    with Receiver() as receiver:
        run(tmp_path, as_typed("outbox", to_lake), **{"https://lake.example/events": receiver.url, " --follow": ""})
    assert len({event["id"] for event in receiver.events}) == number
    assert receiver.kept[0].headers["authorization"] == "Bearer secret"
    run(tmp_path, as_typed("outbox", to_files), **{"/var/spool/gateway-events": str(tmp_path / "events")})
    assert sum(path.read_bytes().count(b"\n") for path in (tmp_path / "events").iterdir()) == number
    run(tmp_path, as_typed("outbox", to_broker))
    events = [json.loads(line) for line in (tmp_path / "decisions.ndjson").read_text().splitlines()]
    assert [event["type"] for event in events] == ["gateway.decision"] * 3


def test_migrate(log: Logged, tmp_path: Path, postgres: PostgresServer) -> None:
    (command,) = commands("migrate")
    log.world.store.close()
    url = postgres.dsn(postgres.create())
    said = run(
        tmp_path, as_typed("migrate", command), **{"postgresql://gateway:${PGPASSWORD}@db.internal/gateway": url}
    )
    assert "copied and compared" in said
