"""Places in requests and answers, as a person spells them: headers that are read or set, numbers that are read.

See `scalars` for how a spelling and a value belong together.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from gateway.backends.hop import OWN_FIELDS
from gateway.config.scalars import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

FIELD = r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}"
HEADER = rf"header:({FIELD})"
TEMPLATE = r"[!-~](?:[ -~]{0,998}[!-~])?"  # of a header's value; ${NAME} stands for a variable of the environment
SECRET = r"[0-9a-fA-F]{64}"  # 32 bytes
KEY = r"[A-Za-z0-9._~+/-]{16,512}=*"  # what may stand behind Bearer (RFC 6750 2.1), too long to be guessed
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
STREAM_WORDS = ("first_token", "longest_gap", "tokens", "duration", "aborted")
POINTER = r"(?:/(?:[^~/]|~[01])*)+"  # RFC 6901, but for the one of the whole document
READING = rf"(?:{HEADER}|json:{POINTER}|stream:(?:{'|'.join(STREAM_WORDS)}))"
PREDICTION = r"(?=.)([^\s\[\]]{1,100})?(?:\[([0-9]{1,9})\])?"

_LONGEST_POINTER = 200
_OWN = {name.decode() for name in OWN_FIELDS} | {"x-request-id"}


def parse_header(value: Any) -> str:
    """The lower-case name of the header in `header:x-user-id`."""
    if isinstance(value, str) and (match := re.fullmatch(HEADER, value)):
        return match[1].lower()
    raise ValueError(f"expected a request header such as header:x-user-id, found {shown(value)}")


def parse_set_header(value: Any) -> str:
    """The lower-case name of a header that is no matter of the connection's."""
    if isinstance(value, str) and re.fullmatch(FIELD, value):
        name = value.lower()
        if name in _OWN or name.startswith("x-gateway-"):
            raise ValueError(f"expected a header other than {shown(value)}, which is the gateway's own")
        return name
    raise ValueError(f"expected the name of a header such as authorization, found {shown(value)}")


def parse_template(value: Any) -> str:
    """A header's value, in which ${NAME} stands for a variable of the environment."""
    if isinstance(value, str) and re.fullmatch(TEMPLATE, value):
        if "${" in VARIABLE.sub("", value):
            raise ValueError("expected ${NAME} with letters, digits and underscores, found a ${ that is none")
        return value
    raise ValueError("expected printable ASCII of 1 to 1000 characters, such as Bearer ${PROVIDER_KEY}")


def parse_key(value: Any) -> str:
    """A key that callers show, in which ${NAME} stands for a variable of the environment. No message repeats it."""
    try:
        return parse_template(value)
    except ValueError as error:
        raise ValueError(str(error).replace("Bearer ${PROVIDER_KEY}", "${OUTCOME_KEY}")) from error


def parse_secret(value: Any) -> str:
    """A secret, in which ${NAME} stands for a variable of the environment. No message repeats it."""
    try:
        return parse_template(value)
    except ValueError as error:
        raise ValueError(str(error).replace("Bearer ${PROVIDER_KEY}", "${GATEWAY_PEPPER}")) from error


def filled(template: str, environment: Mapping[str, str]) -> str:
    """The value; raises KeyError with the name of a variable that is not set."""
    return VARIABLE.sub(lambda match: environment[match[1]], template)


@dataclass(frozen=True, slots=True)
class Prediction:
    """One number of an answer: an element of an output tensor. -1 is the last one, "" the first output."""

    output: str = ""
    index: int = -1

    def __str__(self) -> str:
        return self.output if self.index < 0 else f"{self.output}[{self.index}]"


def parse_prediction(value: Any) -> Prediction:
    """`probability`, `probability[1]` or `[1]`."""
    if isinstance(value, str) and (match := re.fullmatch(PREDICTION, value)):
        return Prediction(match[1] or "", -1 if match[2] is None else int(match[2]))
    raise ValueError(
        f'expected an output of the model and an element such as probability, probability[1] or "[1]" in quotes,'
        f" found {shown(value)}"
    )


@dataclass(frozen=True, slots=True)
class Reading:
    """Where in an answer a number is: in a header, in its JSON, or in how a stream went."""

    kind: Literal["header", "json", "stream"]
    what: str  # lower-case name of the header, JSON pointer (RFC 6901), or one of STREAM_WORDS

    def __str__(self) -> str:
        return f"{self.kind}:{self.what}"


def parse_reading(value: Any) -> Reading:
    """`header:x-cost`, `json:/usage/completion_tokens` or `stream:first_token`."""
    kind, _, what = value.partition(":") if isinstance(value, str) else ("", "", "")
    if kind == "header" and re.fullmatch(HEADER, value):
        return Reading("header", what.lower())
    if kind == "json" and len(what) <= _LONGEST_POINTER and re.fullmatch(POINTER, what):
        return Reading("json", what)
    if kind == "stream":
        if what in STREAM_WORDS:
            return Reading("stream", what)
        raise ValueError(f"expected stream: and {_one_of(STREAM_WORDS)}, found {shown(value)}{_near(what)}")
    hint = ": a pointer begins with /" if kind == "json" and not what.startswith("/") else ""
    raise ValueError(
        "expected header:<name>, json:<pointer> or stream:<word> such as header:x-cost,"
        f" json:/usage/completion_tokens or stream:first_token, found {shown(value)}{hint}"
    )


def _one_of(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _near(word: str) -> str:
    near = difflib.get_close_matches(word.lower(), STREAM_WORDS, n=1)
    return f": did you mean {near[0]!r}?" if near else ""
