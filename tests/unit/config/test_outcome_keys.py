"""How outcomes are taken in and how much the spools may hold: what may be written, and what stays secret."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest

from gateway.assignment.ranges import whole
from gateway.config.changes import diff, needs_restart
from gateway.config.load import LoadedConfig
from gateway.plan import OutcomesPlan, Plan, SigningKey, encode
from gateway.release.artifacts import Artifacts
from gateway.release.compile import compile_plan
from gateway.release.state import ReleaseState

Accepted = Callable[[str], LoadedConfig]
Problems = Callable[[str], list[str]]
SMALL = """\
version: 1
endpoints:
  one:
    protocol: http
    variants: {only: {role: champion, url: "http://upstream:8000/"}}
"""


def planned(loaded: LoadedConfig) -> Plan:
    states = {"one": ReleaseState(endpoint="one", champion="only", slots=whole("only"), status="fixed")}
    return compile_plan(loaded.config, loaded.digest, states, Artifacts(), (SigningKey(id=1, secret="00"),), "00")


def test_by_default_nobody_posts_by_unit_and_the_kernel_keeps_what_was_acknowledged(accepted: Accepted) -> None:
    loaded = accepted(SMALL)
    assert (loaded.config.outcomes.durability, loaded.config.outcomes.keys) == ("process", ())
    assert (loaded.config.spool.max_size, loaded.config.spool.keep) == (8 << 30, 86400.0)
    plan = planned(loaded)
    assert (plan.outcomes, plan.max_spool) == (OutcomesPlan(), 8 << 30)


def test_what_is_written_reaches_the_workers_but_for_the_keys(
    accepted: Accepted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTCOME_KEY", "canary-of-the-first-key")
    monkeypatch.setenv("TAIL", "0123456789")
    keys = '["${OUTCOME_KEY}", "second-${TAIL}+/=="]'
    text = f"{SMALL}outcomes: {{durability: disk, keys: {keys}}}\nspool: {{max_size: 16MiB, keep: 0}}\n"
    loaded = accepted(text)
    assert (loaded.config.spool.max_size, loaded.config.spool.keep) == (16 << 20, 0.0)
    plan = planned(loaded)
    digests = tuple(sha256(key).hexdigest() for key in (b"canary-of-the-first-key", b"second-0123456789+/=="))
    assert plan.outcomes == OutcomesPlan(durability="disk", keys=digests)
    assert plan.max_spool == 16 << 20
    assert b"canary" not in encode(plan)
    spelled = loaded.config.model_dump(mode="json", exclude_none=True)
    assert "canary" not in json.dumps(spelled)
    assert accepted(json.dumps(spelled)).config == loaded.config


def test_a_key_that_is_not_there_is_named(problems: Problems) -> None:
    found = problems(f'{SMALL}outcomes:\n  keys: ["${{NO_SUCH_KEY}}"]\n')
    assert len(found) == 1
    assert found[0].endswith("7: outcomes.keys[0]: expected the variable NO_SUCH_KEY in the environment, found none")


@pytest.mark.parametrize(
    "key",
    ["", "canary-of-15-ch", "canary of blanks and more", "canary\r\nx: y-------------", "canary-ümläute-and-more"],
)
def test_a_key_that_is_none_is_refused_and_not_shown(
    problems: Problems, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OUTCOME_KEY", key)
    found = problems(f'{SMALL}outcomes: {{keys: ["${{OUTCOME_KEY}}"]}}\n')
    assert len(found) == 1
    assert f"expected a key of at least 16 letters, digits or ._~+/-, found {len(key)} characters" in found[0]
    assert not key or key not in found[0]


SLIPS: list[tuple[str, str, str]] = [
    ('outcomes: {keys: ["${A KEY}"]}', "outcomes.keys[0]", "found a ${ that is none"),
    ('outcomes: {keys: [""]}', "outcomes.keys[0]", "expected printable ASCII of 1 to 1000 characters"),
    ("outcomes: {keys: [5]}", "outcomes.keys[0]", "such as ${OUTCOME_KEY}"),
    ("outcomes: {keys: canary}", "outcomes.keys", "expected a list"),
    (f"outcomes: {{keys: [{', '.join(['abcdefghijklmnop'] * 17)}]}}", "outcomes.keys", "expected at most 16 entries"),
    ("outcomes: {durability: disc}", "outcomes.durability", "expected 'process' or 'disk', found 'disc'"),
    ("outcomes: {durabilty: disk}", "outcomes.durabilty", "unknown key: did you mean 'durability'?"),
    ("spool: {max_size: 8GB}", "spool.max_size", "expected a size from 16MiB such as 8GiB, found '8GB'"),
    ("spool: {max_size: 15MiB}", "spool.max_size", "from 16MiB such as 8GiB"),
    ("spool: {max_size: 1000000}", "spool.max_size", "found 1000000"),
    ("spool: {keep: 1}", "spool.keep", "say the unit"),
    ("spool: {keep: 4000d}", "spool.keep", "from 0s to 3650d"),
]


@pytest.mark.parametrize(("line", "key", "words"), SLIPS)
def test_a_slip_is_named_with_its_line(problems: Problems, line: str, key: str, words: str) -> None:
    found = problems(f"{SMALL}{line}\n")
    assert [problem for problem in found if problem.startswith(f"6: {key}: ") and words in problem], found


def test_a_change_of_keys_is_told_without_them_and_needs_no_restart(accepted: Accepted) -> None:
    old, new = (accepted(f"{SMALL}outcomes: {{keys: [{key}]}}\n").config for key in ("a-canary-of-a-key", "b" * 16))
    assert diff(old, new) == ["outcomes.keys: *** -> ***"]
    assert needs_restart(old, new) == []


def test_how_durable_and_how_much_may_change_while_it_runs(accepted: Accepted) -> None:
    old = accepted(SMALL).config
    new = accepted(f"{SMALL}outcomes: {{durability: disk}}\nspool: {{max_size: 1GiB, keep: 1h}}\n").config
    changes: list[Any] = diff(old, new)
    assert changes == ["outcomes.durability: process -> disk", "spool.max_size: 8GiB -> 1GiB", "spool.keep: 1d -> 1h"]
    assert needs_restart(old, new) == []
