"""Any file is a config or a ConfigError that says where, and is so within a second or two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from gateway.config import load
from gateway.config.tree import MAX_BYTES
from gateway.errors import ConfigError, ConfigProblem
from tests.fuzz.mutations import documents, edited
from tests.fuzz.profile import FUZZ, LONG, frugal

FOLDER = Path(__file__).parents[2] / "config"
FILES = {path.name: path.read_bytes() for path in sorted(FOLDER.glob("*.yaml"))}
DOCUMENTS = [YAML(typ="safe", pure=True).load(text) for text in FILES.values()]
WORDS = [
    *("version", "data", "listen", "workers", "endpoints", "protocol", "variants", "role", "url", "onnx", "traffic"),
    *("experiment", "metrics", "stages", "guardrails", "objective", "segments", "unit", "from", "bounds", "type"),
    *("oip", "http", "openai", "champion", "challenger", "10%", "1h", "header:x", "binary", "bounded", "latency"),
]
TOKENS = (
    *(b"\n", b"  ", b"\t", b"- ", b": ", b":\n", b"#", b"&a ", b"*a", b"<<: *a\n", b"!!python/object:os.system x\n"),
    *(
        b"!!binary ",
        b"---\n",
        b"...\n",
        b"%YAML 1.1\n",
        b"%TAG ! !x\n",
        b"? ",
        b"| \n",
        b">-\n",
        b"{",
        b"}",
        b"[",
        b"]",
    ),
    *(b"'", b'"', b"\\", b"010", b"0x1f", b"1:30", b".nan", b"1e999", b"9" * 30, b"${X}", b"~", b"yes", b"\0", b"\x85"),
    *(b"\xef\xbb\xbf", b"\xff", b"\xe2\x80\xa8", b"\r", b"@", b"`", b"100%", b"-1s", b"../../x"),
)
SECONDS = 2.0  # of the processor; a reload waits for no longer
PATH = FOLDER / "fuzzed.yaml"
SIZE = 1_000_000 if LONG else 100_000  # bytes of large files


def taken(text: bytes, seconds: float = SECONDS) -> None:
    """Read as a config; what is said of one that is none names the file and a line of it."""
    lines = text.count(b"\n") + text.count(b"\r") + text.count(b"\xc2\x85") + text.count(b"\xe2\x80") + 1
    problems: list[ConfigProblem] | None = None
    with frugal(seconds):
        try:
            load.warnings(load.parse(text, PATH, files=False))
        except ConfigError as error:
            problems = error.problems
    if problems is None:
        return
    assert 1 <= len(problems) <= load.MAX_PROBLEMS + 1
    for problem in problems:
        assert problem.file == str(PATH)
        assert 1 <= problem.line <= lines or len(text) > MAX_BYTES
        assert problem.message
        assert len(str(problem)) < 5_000


@FUZZ
@given(edited(list(FILES.values()), TOKENS))
def test_bytes_of_a_config_may_be_anything(text: bytes) -> None:
    taken(text)


@FUZZ
@given(documents(DOCUMENTS, WORDS))
def test_values_of_a_config_may_be_anything(document: Any) -> None:
    taken(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS))


@FUZZ
@given(st.one_of(st.text().map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary()))
def test_random_text_is_no_config(text: bytes) -> None:
    with pytest.raises(ConfigError):
        load.parse(text, PATH, files=False)
    taken(text)


@pytest.mark.parametrize("name", FILES)
def test_a_config_cut_after_any_line(name: str) -> None:
    lines = FILES[name].splitlines(keepends=True)
    for count in range(len(lines)):
        taken(b"".join(lines[:count]))


def _bomb() -> bytes:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    return "\n".join(rows).encode()


LARGE = {
    "an alias bomb": _bomb(),
    "an alias of itself": b"version: &a [*a]\n",
    "merges of merges": b"a: &a {<<: *a}\nb: {<<: [*a, *a]}\n",
    "lists in lists": b"version: " + b"[" * SIZE,
    "lists in lists, closed": b"version: " + b"[" * 2_000 + b"]" * 2_000,
    "mappings in mappings": b"{a: " * (SIZE // 4),
    "blocks in blocks": b"".join(b"%ba:\n" % (b" " * depth) for depth in range(1_000)),
    "dashes": b"- " * (SIZE // 2),
    "question marks": b"? " * (SIZE // 2),
    "one long line": b"version: " + b"x" * SIZE,
    "one long quoted line": b'version: "' + b"x" * SIZE + b'"',
    "one long quoted line without end": b'version: "' + b"x" * SIZE,
    "one long key": b"x" * SIZE + b": 1",
    "one long comment": b"version: 1 #" + b"x" * SIZE,
    "comments only": b"#\n" * (SIZE // 2),
    "empty lines only": b"\n" * SIZE,
    "blanks only": b" " * SIZE,
    "tabs only": b"\t" * SIZE,
    "a long block": b"version: |\n" + b" x\n" * (SIZE // 3),
    "a long folded block": b"version: >\n" + b" x\n\n" * (SIZE // 4),
    "words on many lines": b"version: x\n" + b" x\n" * (SIZE // 3),
    "very many keys": b"".join(b"k%d: 1\n" % n for n in range(SIZE // 12)),
    "very many unknown keys of one kind": b"endpoints:\n" + b"".join(b" e%d: 1\n" % n for n in range(SIZE // 12)),
    "very many values": b"version: [" + b"1," * (SIZE // 2) + b"]",
    "one key again and again": b"version: 1\n" * (SIZE // 11),
    "very many anchors": b"version: [" + b"".join(b"&a%d 1," % n for n in range(SIZE // 10)) + b"]",
    "very many tags": b"version: [" + b"!x 1," * (SIZE // 5) + b"]",
    "very many directives": b"".join(b"%%TAG !a%d! !x\n" % n for n in range(SIZE // 18)) + b"---\nversion: 1\n",
    "very many documents": b"---\n" * (SIZE // 4),
    "very many escapes": b'version: "' + b"\\u0041" * (SIZE // 6) + b'"',
    "a long number": b"version: " + b"9" * SIZE,
    "larger than any config": b"#" * (MAX_BYTES + 1),
}


@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE.keys())
def test_large_files_are_refused_in_time(text: bytes) -> None:
    assert len(text) < MAX_BYTES + 2
    taken(text, seconds=8.0)


def test_what_stands_under_a_repeated_key_counts_too() -> None:
    with pytest.raises(ConfigError, match="at most 50000 values"):
        load.parse(b"a:\n" * 51_000, PATH, files=False)
