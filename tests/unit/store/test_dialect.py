"""Shared statements in PostgreSQL's form."""

from __future__ import annotations

from math import inf, nan

import pytest

from gateway.store.postgres.dialect import array, insert, translated


@pytest.mark.parametrize(
    ("shared", "theirs"),
    [
        ("SELECT a FROM t WHERE b = ? AND c < ?", "SELECT a FROM t WHERE b = %s AND c < %s"),
        ("WHERE b = :metric AND c < :within_us", "WHERE b = %(metric)s AND c < %(within_us)s"),
        ("SELECT '?', ':b', 'it''s ?', ?", "SELECT '?', ':b', 'it''s ?', %s"),
        ("SELECT a % 5 WHERE b LIKE '%x'", "SELECT a %% 5 WHERE b LIKE '%%x'"),
        ("SELECT a::bigint, f(x => :x)", "SELECT a::bigint, f(x => %(x)s)"),
    ],
)
def test_parameters_are_written_as_psycopg_wants_them(shared: str, theirs: str) -> None:
    assert translated(shared) == theirs


def test_an_insert_of_one_row_becomes_one_of_many() -> None:
    taken = insert("INSERT INTO vote (a, b) VALUES (?, ?) ON CONFLICT (a) DO UPDATE SET b = excluded.b")
    assert taken is not None
    assert (taken.table, list(taken.columns)) == ("vote", ["a", "b"])
    assert taken.of_arrays(["bigint", "text"]) == (
        "INSERT INTO vote (a, b) SELECT * FROM unnest(CAST(%s AS bigint[]), CAST(%s AS text[]))"
        " ON CONFLICT (a) DO UPDATE SET b = excluded.b"
    )
    assert insert("DELETE FROM vote WHERE a = ?") is None
    assert insert("INSERT INTO vote (a) SELECT ?") is None


@pytest.mark.parametrize(
    ("values", "kind", "text"),
    [
        ([1, None, -(2**63)], "bigint", "{1,NULL,-9223372036854775808}"),
        ([0.1, inf, -inf, None, 1e300], "double precision", "{0.1,inf,-inf,NULL,1e+300}"),
        (["a", None, "", 'b"c\\d', "NULL", "{,}"], "text", '{"a",NULL,"","b\\"c\\\\d","NULL","{,}"}'),
        (["a\0b"], "text", '{"a\N{REPLACEMENT CHARACTER}b"}'),
        ([b"", b"\x00\xff", None], "bytea", '{"\\\\x","\\\\x00ff",NULL}'),
        ([], "bigint", "{}"),
    ],
)
def test_a_column_becomes_an_array(values: list[object], kind: str, text: str) -> None:
    assert array(values, kind) == text


def test_what_is_no_number_is_one_to_the_server() -> None:
    assert array([nan], "double precision") == "{nan}"
