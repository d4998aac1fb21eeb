"""Headers that a variant sets: their variables must be there, and what they hold is shown to nobody."""

from __future__ import annotations

from collections.abc import Callable

import pytest

URL = "url: http://rank-b:8000"
PLACE = "endpoints.search-rank.variants.b.headers"


@pytest.mark.parametrize(
    ("header", "value", "words"),
    [
        ("authorization", "Bearer ${NO_SUCH_KEY}", "expected the variable NO_SUCH_KEY in the environment, found none"),
        ("authorization", "Bearer ${A_KEY", "found a ${ that is none"),
        ("authorization", "Bearer ${BROKEN_KEY}", "expected variables that make a header of printable ASCII"),
        ("host", "other", "which is the gateway's own"),
        ("x-gateway-shadow", "1", "which is the gateway's own"),
    ],
)
def test_a_header_that_cannot_be_set_is_named(
    problems: Callable[[str], list[str]],
    valid: str,
    monkeypatch: pytest.MonkeyPatch,
    header: str,
    value: str,
    words: str,
) -> None:
    monkeypatch.setenv("A_KEY", "canary-1")
    monkeypatch.setenv("BROKEN_KEY", "canary-2\r\nx: y")
    found = problems(valid.replace(URL, f'{URL}\n        headers: {{{header}: "{value}"}}', 1))
    assert [problem for problem in found if PLACE in problem and words in problem], found
    assert not [problem for problem in found if "canary" in problem]
