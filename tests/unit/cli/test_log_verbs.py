"""`gateway export`, `outbox` and `migrate` as they are typed: what is printed, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import gateway
from gateway.cli import main
from gateway.cli.log import names_text, time_text
from gateway.export.migration.copying import Copying
from tests.postgres import PostgresServer, postgres
from tests.unit.export.logs import Logged, make_log
from tests.unit.export.receiver import Receiver

__all__ = ["postgres"]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Logged]:
    made = make_log(tmp_path / "data", units=20)
    yield made
    made.world.close()


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def config(folder: Path, store: str) -> Path:
    path = folder / "gateway.yaml"
    variants = "{a: {role: champion, url: 'http://127.0.0.1:9001'}}"
    endpoint = f"{{protocol: http, variants: {variants}, traffic: {{a: 100%}}}}"
    path.write_text(f"version: 1\nstore: {store}\nendpoints: {{rank: {endpoint}}}\n")
    return path


def test_export_says_what_it_wrote(log: Logged, tmp_path: Path) -> None:
    done = run("export", log.url, "--to", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert f"{tmp_path / 'out'}: 21 exposures, " in done.output
    assert "up to 2023-11-1" in done.output
    document = json.loads(run("export", log.url, "--to", tmp_path / "json", "--json").output)
    assert document == json.loads((tmp_path / "json" / "manifest.json").read_bytes())


@pytest.mark.parametrize("named", ["url", "file", "config"])
def test_a_store_is_named_by_its_url_its_file_or_its_config(log: Logged, tmp_path: Path, named: str) -> None:
    file = log.url.removeprefix("sqlite:///")
    source = {"url": log.url, "file": file, "config": config(tmp_path, log.url)}[named]
    done = run("export", source, "--to", tmp_path / "out", "--what", "exposures", "--experiment", "exp")
    assert done.exit_code == 0, done.output
    assert "20 exposures" in done.output


SERVING = """\
outcomes: {keys: ["${NO_KEY}"]}
keys: {signing: ["${NO_SIGNING}"], pepper: "${NO_PEPPER}"}
endpoints:
  rank:
    protocol: http
    variants: {a: {role: champion, url: "http://127.0.0.1:9001", headers: {authorization: "Bearer ${NO_TOKEN}"}}}
  delay:
    protocol: oip
    variants: {a: {role: champion, onnx: away.onnx}}
"""


def test_who_only_reads_the_store_needs_nothing_that_serving_needs(log: Logged, tmp_path: Path) -> None:
    """Neither the secrets of the config nor its model files."""
    log.world.store.close()
    path = tmp_path / "gateway.yaml"
    path.write_text(f"version: 1\nstore: {log.url}\n{SERVING}")
    for words in (
        ("export", path, "--to", tmp_path / "out"),
        ("outbox", path, "--to", f"file:{tmp_path / 'events'}", "--name", "files"),
        ("replay", path),
        ("verify", path),
        ("migrate", "--from", path, "--to", f"sqlite:///{tmp_path / 'copy.db'}"),
    ):
        done = run(*words)
        assert done.exit_code == 0, (words[0], done.output)
    with gateway.connect(str(path)) as connected:
        assert len(connected.votes("exp")) == 19
    assert "no gateway has run in" in run("status", "--config", path).output
    refused = run("check", path)
    named = ("NO_KEY", "NO_SIGNING", "NO_PEPPER", "NO_TOKEN", "away.onnx")
    assert (refused.exit_code, [name for name in named if name not in refused.output]) == (78, [])


def test_the_variables_of_the_store_itself_are_named(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(f"version: 1\nstore: 'postgresql://me:${{NO_PASSWORD}}@127.0.0.1:9/ab'\n{SERVING}")
    for verb, *words in (("export", "--to", tmp_path / "out"), ("replay",), ("verify",)):
        done = run(verb, path, *words)
        assert "the store's URL needs the variable NO_PASSWORD in the environment" in done.output
        assert done.exit_code == (1 if verb == "export" else 2)


def test_how_an_export_fails(log: Logged, tmp_path: Path) -> None:
    out = ("--to", tmp_path / "out")
    wrong = run("export", log.url, *out, "--what", "exposure")
    assert (wrong.exit_code, "there is no table 'exposure'" in wrong.output) == (2, True)
    since = run("export", log.url, *out, "--since", "yesterday")
    assert (since.exit_code, "expected a date or a time such as 2026-07-01" in since.output) == (2, True)
    unknown = run("export", log.url, *out, "--experiment", "other")
    assert (unknown.exit_code, "no experiment other; it knows exp" in unknown.output) == (1, True)
    missing = run("export", f"sqlite:///{tmp_path}/none.db", *out)
    assert (missing.exit_code, "no store yet" in missing.output) == (1, True)
    refused = tmp_path / "refused.yaml"
    refused.write_text("version: 2\n")
    assert run("export", refused, *out).exit_code == 78
    assert not (tmp_path / "out").exists()


def test_outbox_sends_and_goes_on(log: Logged, tmp_path: Path) -> None:
    with Receiver() as receiver:
        words = ("outbox", log.url, "--to", receiver.url, "--name", "lake", "--form", "cloudevents", "--source", "/eu")
        done = run(*words)
        assert done.exit_code == 0, done.output
        number = len(receiver.events)
        assert f"outbox: {number} events sent" in done.output
        assert {event["source"] for event in receiver.events} == {"/eu"}
        assert "outbox: 0 events sent" in run(*words).output
    assert (tmp_path / "data" / "outbox" / "lake.json").exists()
    decisions = run("outbox", log.url, "--to", "-", "--name", "d", "--what", "decisions")
    assert [json.loads(line)["type"] for line in decisions.stdout.splitlines()] == ["gateway.decision"] * 3
    nothing = run("outbox", log.url, "--to", "-", "--name", "new", "--since", "now")
    assert (nothing.stdout, nothing.exit_code) == ("", 0)


def test_an_outbox_is_of_one_target_until_somebody_says_that_it_moved(log: Logged, tmp_path: Path) -> None:
    with Receiver() as receiver:
        assert run("outbox", log.url, "--to", receiver.url, "--name", "lake").exit_code == 0
    elsewhere = ("outbox", log.url, "--to", f"file:{tmp_path / 'events'}", "--name", "lake")
    refused = run(*elsewhere)
    assert refused.exit_code == 1
    assert f"went to {receiver.url}, and not to file:{tmp_path}/events: take another --name" in refused.output
    log.decide("hold")
    assert "outbox: 1 event sent" in run(*elsewhere, "--moved").output


def test_how_an_outbox_fails(log: Logged, tmp_path: Path) -> None:
    for words, said in {
        ("--to", "kafka://broker", "--name", "x"): "expected -, file:/FOLDER, http(s)://HOST/",
        ("--to", "-", "--name", "../x"): "letters, digits, - and _ only",
        ("--to", "-", "--name", "x", "--what", "votes"): "there are exposures, outcomes, decisions, found 'votes'",
    }.items():
        done = run("outbox", log.url, *words)
        assert (done.exit_code, said in done.output) == (2, True), done.output
    with Receiver([410]) as receiver:
        refused = run("outbox", log.url, "--to", receiver.url, "--name", "x")
    assert (refused.exit_code, "refused with 410" in refused.output) == (1, True)
    assert run("outbox", "postgresql://nobody@127.0.0.1:9/x", "--to", "-", "--name", "x").exit_code == 2  # no --state


def test_nobody_takes_the_events(log: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.cli.outbox._PATIENCE", 0.0)
    with Receiver() as receiver:
        gone = receiver.url
    done = run("outbox", log.url, "--to", gone, "--name", "x")
    assert (done.exit_code, "given up after 1 tries" in done.output) == (75, True)


def test_migrate_prints_a_summary(log: Logged, tmp_path: Path) -> None:
    log.world.store.close()
    done = run("migrate", "--from", log.url, "--to", f"sqlite:///{tmp_path / 'copy.db'}")
    assert done.exit_code == 0, done.output
    assert "assignment             21  " in done.output
    assert "ledger: 3 rows" in done.output
    assert "not read to their end: spools 1, 2" in done.output
    assert f"- in its config `store: sqlite:///{tmp_path / 'copy.db'}`\n- `data_dir` stays where it is" in done.output
    assert "gateway keys" not in done.output
    again = run("migrate", "--from", log.url, "--to", f"sqlite:///{tmp_path / 'json.db'}", "--json")
    document = json.loads(again.output)
    assert document["tables"]["assignment"]["rows"] == 21
    assert document["ledger"]["rows"] == 3


def test_a_store_that_becomes_shared_needs_the_keys_that_it_had(
    log: Logged, tmp_path: Path, postgres: PostgresServer
) -> None:
    log.world.store.close()
    folder = tmp_path / "data"
    for known, database in ((False, postgres.create()), (True, postgres.create())):
        if known:
            (folder / "keys.json").write_text("{}")
        target = postgres.dsn(database)
        done = run("migrate", "--from", log.url, "--to", target)
        assert done.exit_code == 0, done.output
        assert f"- in its config `store: {target}`" in done.output
        assert f"`gateway keys --of {folder if known else 'DATA_DIR'}` prints them" in done.output
    again = run("migrate", "--from", log.url, "--to", target)
    assert (again.exit_code, again.output.count("\n")) == (1, 1)
    assert "the target is not empty: it is a whole store already, with a ledger of 3 rows" in again.output


def test_how_a_migration_fails(log: Logged, tmp_path: Path) -> None:
    log.world.store.close()
    target = f"sqlite:///{tmp_path / 'copy.db'}"
    (tmp_path / "copy.db").write_text("mine")
    refused = run("migrate", "--from", log.url, "--to", target)
    assert (refused.exit_code, "is there already" in refused.output) == (1, True)
    (tmp_path / "copy.db").unlink()
    for words in (("--from", "sqlite", "--to", target), ("--from", "postgresql", "--to", "sqlite")):
        named = run("migrate", *words)
        expected = f"{words[1]}: No such file or directory: expected a config, the file of a store"
        assert (named.exit_code, expected in named.output) == (1, True)
    nonsense = run("migrate", "--from", log.url, "--to", "mysql://there")
    assert (nonsense.exit_code, "expected sqlite:///path or postgresql://" in nonsense.output) == (1, True)


def test_a_copy_that_differs_is_exit_code_65(log: Logged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log.world.store.close()
    read = Copying._read
    monkeypatch.setattr(Copying, "_read", lambda self, table, after: read(self, table, after)[1:])
    done = run("migrate", "--from", log.url, "--to", f"sqlite:///{tmp_path / 'copy.db'}")
    assert (done.exit_code, "the copy differs: " in done.output) == (65, True)


def test_dates_are_utc_unless_they_say_otherwise() -> None:
    context, option = click.Context(click.Command("x")), click.Option(["--since"])
    assert time_text(context, option, None) is None
    assert time_text(context, option, "2026-07-01") == 1_782_864_000_000_000
    assert time_text(context, option, "2026-07-01T02:00:00.000001+02:00") == 1_782_864_000_000_001
    assert names_text(context, option, " a, b ,,c") == ("a", "b", "c")
    assert names_text(context, option, None) == ()
