"""Where to listen, where to call, where to keep: the values that name a place."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import SplitResult, urlsplit

from gateway.backends.prohibited import METADATA_NAMES, is_prohibited
from gateway.config.scalars import shown
from gateway.supervision.listeners import Address

if TYPE_CHECKING:
    from pydantic import ValidationInfo

LISTEN = r"(?:unix:(/[!-~]{1,106})|(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5}))"  # unix(7): 107 bytes
URL = r"https?://[^\s/@?#]+(/[^\s?#]*)?"
PATH = r"/[!\"$-~]*"
MOST_URLS = 16
NETWORK = r"(unix|[0-9a-fA-F:.]+(/[0-9]{1,3})?)"
SQLITE = r"sqlite:///[^?#]+"
_VARIABLE = r"\$\{[A-Za-z_][A-Za-z0-9_]*\}"
_PART = rf"(?:[A-Za-z0-9._~%-]|{_VARIABLE})+"
_HOSTS = rf"(?:[A-Za-z0-9._~%,:\[\]-]|{_VARIABLE})*"  # of one server, or of a primary and its standbys
_OPTION = rf"[a-z_]+=(?:[A-Za-z0-9._~%/@:,+-]|{_VARIABLE})*"
POSTGRES = rf"postgres(?:ql)?://(?:{_PART}(?::{_VARIABLE})?@)?{_HOSTS}/{_PART}(?:\?{_OPTION}(?:&{_OPTION})*)?"
STORE = rf"(?:{SQLITE}|{POSTGRES})"
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\.?")
_NUMERIC = re.compile(r"(.*\.)?(0x[0-9a-f]*|[0-9]+)\.?")  # what the C library reads as an IPv4 address

Network = ipaddress.IPv4Network | ipaddress.IPv6Network | Literal["unix"]


def parse_listen(value: Any) -> Address:
    match = re.fullmatch(LISTEN, value) if isinstance(value, str) else None
    if match is not None and match[1]:
        return Address("", 0, os.path.normpath(match[1]))
    if match is None or int(match[3]) > 65535:
        forms = 'host:port such as 127.0.0.1:8080 or "[::1]:8080", or unix:/path of a socket file'
        raise ValueError(f"expected {forms}, found {shown(value)}")
    host = match[2].strip("[]").lower()
    if match[2].startswith("[") or _NUMERIC.fullmatch(host):
        host = str(_address(host, value))
    return Address(host, int(match[3]))


def parse_network(value: Any) -> Network:
    """A range of addresses, or one, or whoever may use a socket file."""
    if value == "unix":
        return "unix"
    try:
        return ipaddress.ip_network(value if isinstance(value, str) else "")
    except ValueError as error:
        wanted = "expected a network such as 10.0.0.0/8, an address or unix"
        raise ValueError(f"{wanted}, found {shown(value)}: {error}") from error


def parse_url(value: Any) -> str:
    """The base URL of an upstream, without a slash at its end."""
    if not isinstance(value, str) or not re.fullmatch(r"[!-\[\]-~]+", value):
        raise ValueError(f"expected a URL such as http://host:8000, found {shown(value)}")
    parts = _split(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"expected a URL such as http://host:8000, found {shown(value)}")
    if "@" in parts.netloc:
        raise ValueError("expected a URL without user name and password, found credentials in it")
    if "?" in value or "#" in value:
        raise ValueError(f"expected a URL without query and fragment, found {shown(value)}")
    _refuse_local(parts.hostname, value)
    return value.rstrip("/")


def parse_urls(value: Any) -> tuple[str, ...]:
    """One base URL, or a list of those of several replicas."""
    if not isinstance(value, (list, tuple)):
        return (parse_url(value),)
    if not 0 < len(value) <= MOST_URLS:
        raise ValueError(f"expected one to {MOST_URLS} URLs, found {len(value)}")
    urls = tuple(map(parse_url, value))
    if twice := next((url for url in urls if urls.count(url) > 1), None):
        raise ValueError(f"expected each URL once, found {shown(twice)} again")
    return urls


def parse_path(value: Any) -> str:
    """What is asked of an upstream, behind its base URL."""
    if not isinstance(value, str) or not re.fullmatch(PATH, value):
        raise ValueError(f"expected a path such as /health, found {shown(value)}")
    return value


def parse_file(value: Any, info: ValidationInfo) -> Path:
    """A path, taken from the folder of the config file."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected the path of a file, found {shown(value)}")
    return located(value, info)


def parse_folder(value: Any, info: ValidationInfo) -> Path:
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected the path of a folder, found {shown(value)}")
    return located(value, info)


def parse_store(value: Any, info: ValidationInfo) -> str:
    """`sqlite:///` and a path, absolute after this: `sqlite:////var/...`; or a PostgreSQL URL, its variables as they
    are."""
    if isinstance(value, str) and re.match("postgres(ql)?:", value):
        return _parse_postgres(value)
    if not isinstance(value, str) or not re.fullmatch(SQLITE, value) or value.endswith(("/", ":memory:")):
        raise ValueError(f"expected sqlite:///path or postgresql://user@host/database, found {shown(value)}")
    return f"sqlite:///{located(value.removeprefix('sqlite:///'), info)}"


def _parse_postgres(value: str) -> str:
    """No message repeats it, for it may hold a password."""
    authority = value.partition("://")[2]
    password = re.match(r"[^/@]*:(?P<password>[^/]*)@", authority) or re.search(
        r"[?&](?:ssl)?password=(?P<password>[^&]*)", value
    )
    if password and not re.fullmatch(_VARIABLE, password["password"]):
        raise ValueError(
            "expected the password as ${NAME}, taken from the environment, or in a passfile of libpq, found one in here"
        )
    if not re.fullmatch(POSTGRES, value):
        raise ValueError("expected postgresql://user@host/database, found another form of a PostgreSQL URL")
    return value.replace("postgres://", "postgresql://", 1)


def located(value: str, info: ValidationInfo) -> Path:
    """`value` from the folder of the config file, which the caller of the validation passes as `base`."""
    context = info.context or {}
    joined = Path(context.get("base", Path.cwd())) / value
    tidy = Path(os.path.normpath(joined))
    # `..` behind a symbolic link is another place to the system than it is to the eye
    return tidy if os.path.realpath(tidy) == os.path.realpath(joined) else joined


def _split(value: str) -> SplitResult:
    try:
        parts = urlsplit(value)
        if parts.port == 0:
            raise ValueError("port 0")
    except ValueError as error:
        raise ValueError(f"expected a URL with host and port, found {shown(value)} ({error})") from error
    return parts


def _address(host: str, value: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(host)
    except ValueError as error:
        raise ValueError(f"expected an IP address in its usual form, found {shown(value)}") from error


def _refuse_local(host: str, value: str) -> None:
    """Refuse what would let a config reach the machine's own metadata service (credentials live there)."""
    if ":" in host or _NUMERIC.fullmatch(host):
        refused = is_prohibited(str(_address(host, value)))
    elif _HOST.fullmatch(host):
        refused = host.rstrip(".") in METADATA_NAMES
    else:
        raise ValueError(f"expected a host name in its usual form, found {shown(value)}")
    if refused:
        raise ValueError(f"expected an upstream of yours, found the link-local or metadata address {host}")
