"""One line, one JSON object, whatever was logged."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from gateway.telemetry.logging import JsonFormatter


def line(message: object, *args: object, **extra: Any) -> dict[str, Any]:
    record = logging.LogRecord("gateway.x", logging.WARNING, "f.py", 1, message, args, None)
    vars(record).update(extra)
    text = JsonFormatter("worker 3").format(record)
    assert "\n" not in text
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def test_a_line_says_when_who_and_what() -> None:
    entry = line("%d of %s", 3, "x")
    assert entry["time"].endswith("Z")
    assert {k: entry[k] for k in ("level", "process", "logger", "msg")} == {
        "level": "warning",
        "process": "worker 3",
        "logger": "gateway.x",
        "msg": "3 of x",
    }


def test_extras_are_fields() -> None:
    assert line("x", request_id="abc")["request_id"] == "abc"


@pytest.mark.parametrize("message", ["two\nlines", "\x1b[31mred", 'quote"', "lone \ud800 surrogate"])
def test_no_message_breaks_the_line(message: str) -> None:
    assert line(message)["msg"] == message


@pytest.mark.parametrize("value", [2**80, b"bytes", object(), {"a": {1, 2}}, float("inf")])
def test_no_extra_loses_the_line(value: object) -> None:
    assert line("x", value=value)["msg"] == "x"


def test_an_exception_is_told_in_the_same_line() -> None:
    try:
        raise ValueError("why")
    except ValueError as error:
        record = logging.LogRecord("g", logging.ERROR, "f", 1, "m", (), (ValueError, error, error.__traceback__))
    entry = json.loads(JsonFormatter("p").format(record))
    assert "ValueError: why" in entry["exception"]
