"""The README of the store names every table and column, and its queries are answered by both engines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.store.base import Store
from gateway.store.facts import FactTables
from tests.unit.store.conftest import Nodes
from tests.unit.store.story import tell

README = (Path(__file__).parents[3] / "gateway" / "store" / "README.md").read_text()
QUERIES = re.findall(r"```sql\n(.*?);\n```", README, re.DOTALL)
SECTION = re.compile(r"^### `(\w+)`[^\n]*\n(.*?)(?=^##|\Z)", re.DOTALL | re.MULTILINE)


def documented() -> dict[str, set[str]]:
    rows = {table: re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for table, text in SECTION.findall(README)}
    return {table: {name for row in found for name in re.findall(r"`(\w+)`", row)} for table, found in rows.items()}


def test_every_table_and_column_is_told_and_no_other(nodes: Nodes) -> None:
    found: dict[str, set[str]] = {}
    for table, column in nodes.open().rows(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = current_schema()"
        " AND table_name !~ '_[0-9]{8}$'"
    ):
        found.setdefault(table, set()).add(column)
    assert documented() == found


@pytest.mark.parametrize("query", QUERIES)
def test_the_queries_are_answered(store: Store, query: str) -> None:
    tell(store)
    store.append_ledger(1, 1, "rank", "exp", "start", {"from": None, "to": {"stage": "s1"}, "actor": "gateway"})
    assert isinstance(store, FactTables)
    assert store.rows(query)


def test_there_are_queries() -> None:
    assert len(QUERIES) == 5
