"""Files that are no configs: each gets a clear word with its place, none a traceback."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.config import tree
from gateway.config.load import MAX_PROBLEMS, LoadedConfig, load, parse
from gateway.config.tree import MAX_BYTES, MAX_DEPTH
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILES: list[tuple[str | bytes, str]] = [
    ("", "1: expected a configuration, found an empty file"),
    ("# nothing but a comment\n", "1: expected a configuration, found an empty file"),
    ("---\n", "expected keys and values at the top of the file"),
    ("- a\n- b\n", "1: expected keys and values at the top of the file"),
    ("just words\n", "1: expected keys and values at the top of the file"),
    ("version: 1\ndata:\n\tlisten: x\n", "3: expected spaces for indentation, found a tab"),
    ("version: 1\nendpoints: {a: [1, \n", "not valid YAML: "),
    ("version: 1\n  endpoints: {}\n", "not valid YAML: mapping values are not allowed here"),
    ("version: 1\ndata: {listen: [::1]:8080}\n", "2: not valid YAML: "),
    ("version: 1\n---\nversion: 1\n", "2: expected one document, found a second one"),
    ("version: 1\n...\nversion: 1\n", "3: expected one document, found a second one"),
    ("%YAML 1.1\n---\nversion: 1\n", "expected YAML 1.2, found a %YAML directive for another version"),
    (b"\xef\xbb\xbfversion: 1\n", "1: expected UTF-8 without a byte order mark, found one"),
    ("version: 1\n".encode("utf-16"), "1: expected UTF-8 without a byte order mark, found one"),
    (b"version: 1\nstore: caf\xe9\n", "2: expected UTF-8, found byte 0xe9"),
    (b"version: 1\nstore: a\x00b\n", "2: expected printable text, found the character U+0000"),
    ("a" * (MAX_BYTES + 1), f"expected at most {MAX_BYTES} bytes, found a larger file"),
    ("a: " + "[" * 40_000, f"1: expected at most {MAX_DEPTH} levels, found more"),
    ("a:\n" + "".join(" " * n + "a:\n" for n in range(1, 60)), f"expected at most {MAX_DEPTH} levels"),
    ("? [a, b]\n: 1\n", "1: expected text as key, found another structure"),
    ("a: *nowhere\n", "1: a: expected a plain value, found an anchor or alias"),
    ('"a\\0b": 1\n', "1: expected a key of at most 100 printable characters, found 'a\\x00b'"),
    (f"{'k' * 101}: 1\n", "1: expected a key of at most 100 printable characters"),
    ('a: "\\UFFFFFFFF"\n', "not readable as YAML: "),
]

PARTS: list[tuple[str, str]] = [
    ("version: 1\nversion: 1\n", "2: version: expected each key once, found it in line 1 too"),
    ("data: {workers: 1,\n  workers: {a: [b, {c: d}]}}\n", "2: data.workers: expected each key once"),
    ("version: &one 1\n", "1: version: expected a plain value, found an anchor or alias"),
    ("version: &one 1\ndata: *one\n", "2: data: expected a plain value, found an anchor or alias"),
    ("version: 1\n<<: {a: b}\n", "2: <<: unknown key"),
    ("version: !!int 1\n", "1: version: expected a plain value, found the tag tag:yaml.org,2002:int"),
    ("data: !!python/object:os.system {}\n", "1: data: expected a plain value, found the tag"),
    ("!!str version: 1\n", "1: version: expected a plain name as key, found an anchor or tag"),
    ("404: 1\n", "1: 404: expected text as key, found 404: put it in quotes"),
    ("~: 1\n", "1: ~: expected text as key, found ~"),
    ("version:\n", "1: version: expected a value, found nothing"),
    ("store: |\n  sqlite:///a\n  b\n", "1: store: expected text in one line, found the character U+000A"),
    ('store: "sqlite:///a\\0b"\n', "1: store: expected text in one line, found the character U+0000"),
    ('store: "\\ud800"\n', "1: store: expected text in one line, found the character U+D800"),
    ("version: 0o1\n", "1: version: expected a decimal number, found 0o1"),
    ("version: 01\n", "1: version: expected a decimal number, found 01"),
    ("version: 1111111111111111111\n", "1: version: expected a number of at most 18 digits, found 19"),
    ("version: 1_0\n", "1: version: expected 1, the only version of this format, found '1_0'"),
    ("version: 1.0\n", "1: version: expected 1, the only version of this format, found 1.0"),
    ('version: "1"\n', "1: version: expected 1, the only version of this format, found '1'"),
    ("version: yes\n", "1: version: expected 1, the only version of this format, found 'yes'"),
    ("version: 2024-01-01\n", "found '2024-01-01'"),
    ("version: 1:30\n", "found '1:30'"),
    ("version: -.inf\n", "found -inf"),
]


@pytest.mark.parametrize(("text", "words"), FILES)
def test_a_file_that_is_no_config(problems: Callable[[str | bytes], list[str]], text: str | bytes, words: str) -> None:
    found = problems(text)
    assert any(words in problem for problem in found), found


@pytest.mark.parametrize(("text", "words"), PARTS)
def test_a_spelling_with_more_than_one_meaning(problems: Callable[[str], list[str]], text: str, words: str) -> None:
    found = problems(text)
    assert any(words in problem for problem in found), found


def test_a_part_that_was_refused_is_not_blamed_again(problems: Callable[[str], list[str]], valid: str) -> None:
    assert len(problems(valid.replace("workers: 4", "workers:"))) == 1
    assert len(problems(valid.replace("workers: 4", "workers: 010"))) == 1
    assert len(problems(valid.replace("brier:\n", "brier: &b\n"))) == 1
    assert len(problems(valid.replace("a: 80%", "a: !!str 80%"))) == 1


def test_an_alias_bomb_costs_nothing(problems: Callable[[str], list[str]]) -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    found = problems("\n".join(levels))
    assert any(problem.startswith("2: a1[0]: expected a plain value") for problem in found)


def test_the_number_of_values_is_bounded(
    problems: Callable[[str], list[str]], valid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "MAX_VALUES", 100)
    assert problems(valid) == ["82: expected at most 100 values, found more"]


def test_many_problems_are_counted_and_not_all_told(problems: Callable[[str], list[str]]) -> None:
    found = problems("".join(f"key{number}: 1\n" for number in range(500)))
    assert len(found) == MAX_PROBLEMS + 1
    assert "more problems" in found[-1]


def test_line_ends_of_windows_are_fine(accepted: Callable[[str], LoadedConfig], valid: str) -> None:
    assert accepted(valid.replace("\n", "\r\n")).config == accepted(valid).config


def test_load_reads_a_file(path: Path, valid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(valid)
    monkeypatch.chdir(path.parent)
    loaded = load(path.relative_to(path.parent))
    assert loaded.path == path
    assert loaded.digest == hashlib.sha256(valid.encode()).hexdigest()
    assert loaded.config.data_dir == path.parent / "var/gateway"


def test_what_cannot_be_read_is_a_config_error(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.yaml: cannot be read: No such file or directory"):
        load(path)
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="cannot be read: not a regular file"):
        load(path)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(path.parent)


def test_a_file_without_end_is_read_to_the_limit_only(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 * MAX_BYTES)
    with pytest.raises(ConfigError, match="found a larger file"):
        load(path)


def _is_taken_or_refused(text: bytes, path: Path) -> None:
    try:
        parse(text, path)
    except ConfigError as error:
        problems = error.problems
    else:
        return
    assert problems
    assert all(problem.message for problem in problems)


SAME_FOLDER = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SAME_FOLDER
@given(st.data())
def test_half_a_file_never_breaks_anything(path: Path, valid: str, data: st.DataObject) -> None:
    lines = valid.splitlines(keepends=True)
    start = data.draw(st.integers(0, 3))
    end = data.draw(st.integers(0, len(lines)))
    cut = data.draw(st.integers(0, 20))
    _is_taken_or_refused("".join(lines[start:end]).encode()[: -cut or None], path)


@SAME_FOLDER
@given(st.data())
def test_an_edit_anywhere_never_breaks_anything(path: Path, valid: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(valid)))
    width = data.draw(st.integers(0, 12))
    put = data.draw(
        st.sampled_from(["", "\t", ":", "- ", "{", "]", "*a", "&a ", "!", "0", ".nan", "null", '"', "\n", "%"])
        | st.text(max_size=4)
    )
    text = valid[:at] + put + valid[at + width :]
    _is_taken_or_refused(text.encode(errors="surrogatepass"), path)


@SAME_FOLDER
@given(st.binary(max_size=200))
def test_noise_never_breaks_anything(path: Path, text: bytes) -> None:
    _is_taken_or_refused(text, path)
    _is_taken_or_refused(b"version: 1\nendpoints:\n  " + text, path)
