"""SQL written once: what each database gets of it, and in which order the values go."""

import re
import sqlite3
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.storage.rows.statements import Batch, Compiled, Statement

NAMES = ("store_id", "now", "sha256", "memory_id", "path", "size", "end")

paths_to_find = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
parameter_lists = st.lists(st.sampled_from(NAMES), min_size=1, max_size=8)


def named_again(compiled: Compiled) -> str:
    """A compiled text with its positions replaced by the names that stand there."""
    if "$" in compiled.sql:
        return re.sub(r"\$(\d+)(::[A-Z]+(\[\])?)?", lambda place: ":" + compiled.names[int(place[1]) - 1], compiled.sql)
    names = iter(compiled.names)
    again = re.sub(r"\?", lambda _: ":" + next(names), compiled.sql)
    assert next(names, None) is None, "a value without a place"
    return again


def on_sqlite(statement: Statement, parameters: dict[str, Any]) -> list[Any]:
    with sqlite3.connect(":memory:") as connection:
        return connection.execute(statement.sqlite.sql, statement.sqlite.json_arguments(parameters)).fetchall()


@given(parameter_lists)
def test_each_position_stands_for_the_name_that_was_there(names: list[str]) -> None:
    sql = "SELECT " + ", ".join(f":{name} + 1" for name in names)
    statement = Statement(sql)
    assert named_again(statement.postgresql) == sql
    assert named_again(statement.sqlite) == sql


@given(parameter_lists, st.data())
def test_values_reach_the_places_of_their_names(names: list[str], data: st.DataObject) -> None:
    parameters = {name: data.draw(st.integers(-(2**63), 2**63 - 1)) for name in NAMES}
    statement = Statement("SELECT " + ", ".join(f":{name}" for name in names))
    assert on_sqlite(statement, parameters) == [tuple(parameters[name] for name in names)]
    assert statement.postgresql.arguments(parameters) == [parameters[name] for name in statement.postgresql.names]


def test_parameters_that_a_statement_does_not_name_are_left_out() -> None:
    compiled = Statement("SELECT :path").postgresql
    assert compiled.arguments({"path": 1, "store_id": "x"}) == [1]


def test_a_missing_parameter_is_an_error_of_the_caller() -> None:
    with pytest.raises(KeyError, match="store_id"):
        Statement("SELECT :store_id").sqlite.arguments({"path": 1})


def test_postgresql_is_told_the_type_of_every_parameter() -> None:
    sql = Statement("SELECT :store_id, :sha256, :now, :size, :operation").postgresql.sql
    assert sql == "SELECT $1::VARCHAR, $2::BYTEA, $3::BIGINT, $4::INTEGER, $5::SMALLINT"


def test_a_parameter_has_the_type_of_its_column_and_no_other_name_can_be_used() -> None:
    assert Statement("SELECT :redacted_at, :salt").postgresql.sql == "SELECT $1::BIGINT, $2::BYTEA"
    with pytest.raises(LookupError, match=":redacted_ats of a statement is neither a column nor listed"):
        Statement("SELECT :redacted_ats")


def test_a_cast_is_no_parameter() -> None:
    statement = Statement("SELECT x::text, '12:30', :path")
    assert statement.postgresql.names == statement.sqlite.names == ("path",)


def test_membership_in_a_list_is_an_array_on_postgresql() -> None:
    statement = Statement("SELECT id FROM memories WHERE path IN_LIST(:paths)")
    assert statement.postgresql.sql == "SELECT id FROM memories WHERE path = ANY($1::VARCHAR[])"
    assert statement.postgresql.arguments({"paths": ["/a", "/b"]}) == [["/a", "/b"]]


@given(st.lists(paths_to_find, max_size=5), st.data())
def test_membership_in_a_list_is_json_on_sqlite_and_finds_the_same(paths: list[str], data: st.DataObject) -> None:
    wanted = data.draw(st.sampled_from([*paths, "/not/there"]))
    found = on_sqlite(Statement("SELECT :path IN_LIST(:paths)"), {"path": wanted, "paths": paths})
    assert found == [(int(wanted in paths),)]


@pytest.mark.parametrize(
    "lock", ["FOR UPDATE", "FOR UPDATE SKIP LOCKED", "FOR UPDATE OF memories", "FOR UPDATE OF m SKIP LOCKED"]
)
def test_a_row_lock_is_kept_on_postgresql_and_dropped_on_sqlite(lock: str) -> None:
    statement = Statement(f"SELECT id FROM memories m WHERE id = :path\n{lock}")
    assert statement.postgresql.sql == f"SELECT id FROM memories m WHERE id = $1::VARCHAR\n{lock}"
    assert statement.sqlite.sql == "SELECT id FROM memories m WHERE id = ?"


def test_a_batch_is_one_statement_on_postgresql_in_the_order_written() -> None:
    batch = Batch(Statement("INSERT :path"), Statement("UPDATE :now, :path"), Statement("DELETE :end"))
    assert named_again(batch.postgresql) == (
        "WITH part0 AS (INSERT :path),\npart1 AS (UPDATE :now, :path)\nDELETE :end"
    )


def test_a_batch_is_its_statements_one_by_one_on_sqlite_in_the_order_written() -> None:
    batch = Batch(Statement("INSERT :path"), Statement("UPDATE :now, :path"), Statement("DELETE :end"))
    assert [(part.sql, part.names) for part in batch.sqlite] == [
        ("INSERT ?", ("path",)),
        ("UPDATE ?, ?", ("now", "path")),
        ("DELETE ?", ("end",)),
    ]
