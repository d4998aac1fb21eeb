"""The admin API as the command line calls it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import msgspec

from gateway.config.load import load
from gateway.errors import ConfigError, GatewayError, StoreError, StoreUnreachable

DEFAULT_DATA_DIR = "var/gateway"  # as in the config's schema
TIMEOUT = 10.0  # seconds; the control process answers from a snapshot


class AdminError(GatewayError):
    """The admin port cannot be reached, or it refused."""

    reason = "admin"


class AdminAway(AdminError):
    """Nobody could do what was asked for: no control process, or its store is away."""


class Admin:
    """A running gateway, found by its config."""

    def __init__(self, address: str) -> None:
        """`address` is host:port or unix:/path."""
        self._address = address
        path = address.removeprefix("unix:")
        self._file = path if path != address else None
        self._base = "http://gateway" if self._file else f"http://{address}"

    @classmethod
    def of_config(cls, path: Path) -> Admin:
        """The gateway that serves from this config; the address comes from its data directory (port 0 is allowed)."""
        return cls.ofdata_dir_of(data_dir_of(path))

    @classmethod
    def ofdata_dir_of(cls, data_dir: Path) -> Admin:
        try:
            node = msgspec.json.decode((data_dir / "node.json").read_bytes(), type=dict[str, Any])
        except (OSError, msgspec.DecodeError) as error:
            raise AdminError(f"no gateway has run in {data_dir}") from error
        return cls(node["admin"])

    def status(self) -> dict[str, Any]:
        return self._call("GET", "/api/status")

    def decisions(self) -> list[dict[str, Any]]:
        decisions: list[dict[str, Any]] = self._call("GET", "/api/decisions")["decisions"]
        return decisions

    def command(self, endpoint: str, verb: str, actor: str, reason: str, variant: str = "") -> dict[str, Any]:
        body = {"actor": actor, "reason": reason, "variant": variant}
        return self._call("POST", f"/api/endpoints/{endpoint}/{verb}", body)

    def forget_node(self, number: int, actor: str, reason: str) -> dict[str, Any]:
        return self._call("POST", f"/api/nodes/{number}/forget", {"actor": actor, "reason": reason})

    def erase(self, unit: str, endpoint: str, actor: str, reason: str) -> dict[str, Any]:
        body = {"unit": unit, "endpoint": endpoint, "actor": actor, "reason": reason}
        return self._call("POST", "/api/erasures", body)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            with httpx.Client(transport=httpx.HTTPTransport(uds=self._file), timeout=TIMEOUT) as client:
                answer = client.request(method, self._base + path, json=body)
        except httpx.HTTPError as error:
            raise AdminAway(f"no gateway answers at {self._address}: {error}") from error
        if answer.status_code not in (200, 202):
            raise _refusal(method, answer)
        document: dict[str, Any] = answer.json()
        return document


def data_dir_of(path: Path) -> Path:
    """The config's data directory, also from a file that is broken at the moment: the gateway serves on from the
    last good one, and a person must be able to see that and to roll back."""
    try:
        return load(path, serving=False).config.data_dir
    except ConfigError:
        if not path.is_file():
            raise
        found = re.search(r"^data_dir:\s*[\"']?([^\s\"'#]+)", path.read_text(errors="replace"), re.MULTILINE)
        return path.absolute().parent / (found[1] if found else DEFAULT_DATA_DIR)


def _refusal(method: str, answer: httpx.Response) -> AdminError:
    """What an answer that is none says. Of a command whoever gave it must know whether it will still be done."""
    try:
        problem = answer.json()
        detail, kind = str(problem["detail"]), problem.get("type")
    except (ValueError, KeyError, TypeError, AttributeError):
        return AdminError(f"{answer.status_code}: {answer.text[:200]}")
    if method != "GET" and kind == f"urn:gateway:{StoreUnreachable.reason}":
        return AdminAway(f"nothing was done, and will not be by itself: {detail}")
    if method != "GET" and kind == f"urn:gateway:{StoreError.reason}":
        return AdminAway(f"perhaps nothing was done, `gateway status` tells: {detail}")
    return AdminError(detail)
