"""How a person spells a value, and what the program makes of it.

Each kind of value has a function from the spelling to the value, which raises ValueError with what was
expected and what was found, a function back to the spelling, and a pattern for editors.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PlainValidator

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = r"[a-z0-9][a-z0-9._-]{0,62}"
STAGE = r"[a-z0-9][a-z0-9._%-]{0,62}"  # traffic-1% is the name of a stage
LABEL = r"\S(.{0,98}\S)?"  # a header's value comes without blanks around it
DIGEST = r"[0-9a-fA-F]{64}"
DURATION = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)"
PERCENT = r"([0-9]{1,3}(?:\.[0-9]{1,10})?)%"
RELATIVE = r"([0-9]{1,4}(?:\.[0-9]{1,10})?)%"  # of a value, not of a whole
SIZE = r"([0-9]{1,9})(KiB|MiB|GiB)"

LONGEST = "3650d"
MAX_SIZE = 1 << 30
LEAST_MEMORY = 128 << 20  # a worker without any model has half of it
LEAST_SPACE = 16 << 20
_SECONDS = {"d": Decimal(86400), "h": Decimal(3600), "m": Decimal(60), "s": Decimal(1), "ms": Decimal("1e-3")}
_BYTES = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10}
_SECRET = re.compile(r"//\S*@")


def shown(value: Any) -> str:
    """A value as part of a message: short, and without the credentials that a URL may hold."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return "a list" if isinstance(value, list) else "keys and values"
    text = _SECRET.sub("//***@", str(value))
    text = text if len(text) <= 80 else text[:77] + "..."
    return f"'{text}'" if isinstance(value, str) else text


def spelled(parse: Callable[..., Any], pattern: str) -> PlainValidator:
    """Validate by `parse` alone; `pattern` is what editors are told."""
    return PlainValidator(parse, json_schema_input_type=Annotated[str, Field(pattern=f"^{pattern}$")])


def name(pattern: str = NAME, reserved: frozenset[str] = frozenset()) -> PlainValidator:
    """Names that are safe in paths, labels and logs."""

    def parse(value: Any) -> str:
        if isinstance(value, str) and re.fullmatch(pattern, value):
            if value in reserved:
                raise ValueError(f"expected a name other than {shown(value)}, which is the gateway's own")
            return value
        allowed = "'.', '_', '-' or '%'" if pattern == STAGE else "'.', '_' or '-'"
        raise ValueError(
            f"expected a name of at most 63 lower-case letters, digits, {allowed}, beginning with a letter"
            f" or digit, found {shown(value)}"
        )

    return spelled(parse, pattern)


def parse_model(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(LABEL, value):
        return value
    raise ValueError(f"expected the upstream's name of a model, found {shown(value)}")


def parse_digest(value: Any) -> str:
    """Lower case."""
    if isinstance(value, str) and re.fullmatch(DIGEST, value):
        return value.lower()
    hint = "" if isinstance(value, str | dict | list | None) else ": put it in quotes"
    raise ValueError(f"expected a SHA-256 of 64 hex digits, found {shown(value)}{hint}")


def parse_label(value: Any) -> str:
    if value == "other":
        raise ValueError("expected a value other than 'other', which stands for all values not listed")
    if isinstance(value, str) and re.fullmatch(LABEL, value):
        return value
    hint = "" if isinstance(value, str | dict | list | None) else ": put it in quotes"
    raise ValueError(f"expected text of 1 to 100 characters, found {shown(value)}{hint}")


def parse_duration(value: Any) -> float:
    """Seconds."""
    if value == 0 and type(value) is int:
        return 0.0
    if isinstance(value, str) and (match := re.fullmatch(DURATION, value)):
        return float(Decimal(match[1]) * _SECONDS[match[2]])
    hint = f": say the unit, {value}s or {value}ms" if type(value) in (int, float) else ""
    raise ValueError(f"expected a duration such as 250ms, 1.5s, 5m, 1h or 30d, found {shown(value)}{hint}")


def duration(low: str, high: str = LONGEST) -> PlainValidator:
    """Durations from `low` to `high`."""
    least, most = parse_duration(low), parse_duration(high)

    def parse(value: Any) -> float:
        seconds = parse_duration(value)
        if not least <= seconds <= most:
            raise ValueError(f"expected a duration from {low} to {high}, found {shown(value)}")
        return seconds

    text: Any = Annotated[str, Field(pattern=f"^{DURATION}$")]
    return PlainValidator(parse, json_schema_input_type=text if least else text | Literal[0])


def duration_text(seconds: float) -> str:
    """The shortest exact spelling."""
    exact = Decimal(repr(seconds))
    for unit in ("d", "h", "m"):
        if exact and exact % _SECONDS[unit] == 0:
            return f"{_plain(exact / _SECONDS[unit])}{unit}"
    return f"{_plain(exact)}s" if exact >= 1 or not exact else f"{_plain(exact * 1000)}ms"


def parse_percent(value: Any) -> Decimal:
    """The exact share: 12.5% is Decimal("0.125")."""
    if isinstance(value, str) and (match := re.fullmatch(PERCENT, value)) and Decimal(match[1]) <= 100:
        return Decimal(match[1]).scaleb(-2)
    hint = f": is {value}% meant?" if type(value) is int else ""
    raise ValueError(f"expected a percentage from 0% to 100% such as 12.5%, found {shown(value)}{hint}")


def parse_part(value: Any) -> Decimal:
    """A share that leaves something on both sides."""
    share = parse_percent(value)
    if not 0 < share < 1:
        raise ValueError(f"expected a percentage above 0% and below 100%, found {shown(value)}")
    return share


def parse_sample(value: Any) -> Decimal:
    """A share of something, perhaps all of it."""
    share = parse_percent(value)
    if not share:
        raise ValueError(f"expected a percentage above 0% up to 100%, found {shown(value)}")
    return share


def parse_relative(value: Any) -> Decimal:
    """A part of another value: 2% is Decimal("0.02"), and 150% is more than the value itself."""
    if isinstance(value, str) and (match := re.fullmatch(RELATIVE, value)) and 0 < Decimal(match[1]) <= 1000:
        return Decimal(match[1]).scaleb(-2)
    hint = f": is {value}% meant?" if type(value) is int else ""
    raise ValueError(f"expected a percentage above 0% up to 1000% such as 2%, found {shown(value)}{hint}")


def percent_text(share: Decimal) -> str:
    return f"{_plain(share.scaleb(2))}%"


def parse_size(value: Any) -> int:
    """Bytes."""
    size = value if type(value) is int else None
    if isinstance(value, str) and (match := re.fullmatch(SIZE, value)):
        size = int(match[1]) * _BYTES[match[2]]
    if size is None or not 1 <= size <= MAX_SIZE:
        raise ValueError(f"expected a size up to 1GiB such as 16MiB, 64KiB or bytes, found {shown(value)}")
    return size


def parse_memory(value: Any) -> int:
    """Bytes that a process may hold."""
    return _at_least(LEAST_MEMORY, "2GiB", value)


def parse_space(value: Any) -> int:
    """Bytes on a disk."""
    return _at_least(LEAST_SPACE, "8GiB", value)


def _at_least(least: int, example: str, value: Any) -> int:
    match = re.fullmatch(SIZE, value) if isinstance(value, str) else None
    size = int(match[1]) * _BYTES[match[2]] if match else 0
    if size < least:
        raise ValueError(f"expected a size from {size_text(least)} such as {example}, found {shown(value)}")
    return size


def size_text(size: int) -> str:
    unit = next((unit for unit, factor in _BYTES.items() if size % factor == 0), "")
    return f"{size // _BYTES[unit]}{unit}" if unit else str(size)


def number_or_auto(most: int) -> PlainValidator:
    """A whole number from 1 on, or auto."""

    def parse(value: Any) -> int | Literal["auto"]:
        if value == "auto":
            return "auto"
        if type(value) is int and 1 <= value <= most:
            return value
        raise ValueError(f"expected auto or a whole number from 1 to {most}, found {shown(value)}")

    return PlainValidator(parse, json_schema_input_type=Annotated[int, Field(ge=1, le=most)] | Literal["auto"])


def parse_version(value: Any) -> Literal[1]:
    if type(value) is int and value == 1:
        return 1
    raise ValueError(f"expected 1, the only version of this format, found {shown(value)}")


def _plain(number: Decimal) -> str:
    """Decimal digits without exponent and without zeros at the end."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
