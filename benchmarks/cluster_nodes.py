"""Three nodes on one PostgreSQL, and how to get into their way."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psycopg

from benchmarks.node_config import document
from benchmarks.nodes import CONTROL, PEPPER, SIGNING, Node, settled
from gateway.store.postgres.nodes import LEDGER_LOCK

if TYPE_CHECKING:
    from tests.postgres import PostgresServer

NODES = 3
LEADS = 30.0  # seconds within which somebody must lead
_SETTINGS = {"fsync": "on", "full_page_writes": "on"}


@contextmanager
def members(folder: Path, **settings: str) -> Iterator[tuple[list[Node], PostgresServer]]:
    """The nodes, not started, and the server, which is."""
    from tests.postgres import PostgresServer  # drags pytest in

    environment = {SIGNING: secrets.token_hex(32), PEPPER: secrets.token_hex(32)}
    keys = {"signing": [f"${{{SIGNING}}}"], "pepper": f"${{{PEPPER}}}"}
    with PostgresServer(**(_SETTINGS | settings)) as server:
        store = server.dsn(server.create())
        nodes = []
        for number in range(1, NODES + 1):
            made = document(store=store, keys=keys)
            made["data"]["workers"] = 1
            nodes.append(Node(folder / f"node-{number}", made, environment=environment))
        yield nodes, server


def leader(nodes: Sequence[Node]) -> Node:
    """Whoever leads, once somebody does."""
    settled(lambda: leads(nodes) is not None, "nobody leads", LEADS)
    found = leads(nodes)
    return found if found is not None else leader(nodes)


def leads(nodes: Sequence[Node]) -> Node | None:
    """The node that says of itself that it leads."""
    for node in nodes:
        with suppress(httpx.HTTPError):
            status = node.status()
            if any(one["leads"] and one["number"] == status["node"] for one in status["nodes"]):
                return node
    return None


class Held:
    """A lock that whoever appends to the ledger has to have, held by somebody else."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (LEDGER_LOCK,))

    def awaited(self) -> bool:
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = %s"
        row = self._connection.execute(waiting, (LEDGER_LOCK & 0xFFFFFFFF,)).fetchone()
        return row is not None and row[0] > 0

    def let_go(self) -> None:
        self._connection.rollback()


@contextmanager
def ledger_held(node: Node) -> Iterator[Held]:
    with psycopg.connect(node.store_url) as connection:
        yield Held(connection)


@contextmanager
def stopped(node: Node) -> Iterator[None]:
    """Its control process does nothing at all until it is told to go on, or this ends."""
    (control,) = node.processes(CONTROL)
    node.signal(control, signal.SIGSTOP)
    try:
        yield
    finally:
        node.signal(control, signal.SIGCONT)
