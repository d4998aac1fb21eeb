"""The forms in which outcomes are posted: whatever JSON comes, it is read or refused in words."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import RequestError
from gateway.serving.outcomes.posted import Posted, documents, posted

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
KEYS = st.sampled_from(["decision", "endpoint", "unit", "metric", "value", "id", "at", "outcomes", "other"])
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=7) | VALUES


def test_by_decision_and_by_unit() -> None:
    assert posted({"decision": "t", "metric": "m", "value": 1}) == Posted("t", "", "", "m", 1, "", None)
    by_unit = {"endpoint": "e", "unit": " u\t", "metric": "m", "value": [1], "id": "i", "at": 5}
    assert posted(by_unit) == Posted("", "e", "u", "m", [1], "i", 5)
    assert posted(by_unit | {"decision": None}).unit == "u"


@given(DOCUMENTS)
def test_whatever_document_comes_is_one_outcome_or_refused(document: Any) -> None:
    with suppress(RequestError):
        one = posted(document)
        assert bool(one.unit) == bool(one.endpoint)
        assert not (one.unit and one.decision)
        assert one.metric
        assert one.value == document["value"]


@given(DOCUMENTS, st.sampled_from([b"", b"application/json", b"application/x-ndjson"]))
def test_whatever_body_comes_is_outcomes_or_refused(document: Any, content_type: bytes) -> None:
    with suppress(RequestError):
        found, single = documents(json.dumps(document).encode(), content_type)
        assert 0 < len(found) <= 10_000
        assert not single or len(found) == 1


@given(st.binary(max_size=200))
def test_whatever_bytes_come_are_read_or_refused(body: bytes) -> None:
    for content_type in (b"", b"application/x-ndjson"):
        with suppress(RequestError):
            for document in documents(body, content_type)[0]:
                with suppress(RequestError):
                    posted(document)


@pytest.mark.parametrize("document", [[], {}, 3, "x", None, True])
def test_no_outcome_is_named_as_such(document: Any) -> None:
    with pytest.raises(RequestError):
        posted(document)
