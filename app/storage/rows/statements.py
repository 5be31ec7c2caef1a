"""SQL as text, written once with named parameters and compiled once for each database.

Parameters are written `:like_this`; their types are those of the columns of that name, so that PostgreSQL never has to
guess.
Three notations stand for what the databases spell differently:

- `IN_LIST(:names)`: membership in a list parameter (an array on PostgreSQL, JSON on SQLite);
- `EACH(:names) AS n`: a list parameter as rows `n (value, position)`, positions from 1;
- `FOR UPDATE`, `FOR UPDATE SKIP LOCKED`: dropped on SQLite, whose write transactions hold the only write lock.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Integer, LargeBinary, String, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg_dialect
from sqlalchemy.dialects.sqlite.pysqlite import dialect as pysqlite_dialect
from sqlalchemy.types import TypeEngine

from app.storage.rows.tables import metadata

Parameters = Mapping[str, Any]


def _column_types() -> dict[str, TypeEngine[Any]]:
    """The types of all columns by name. Tables agree on them; only `id` is text in one and a number in another."""
    types: dict[str, TypeEngine[Any]] = {}
    for column in (column for table in metadata.sorted_tables for column in table.columns):
        kind = String() if isinstance(column.type, String) else column.type
        if repr(types.setdefault(column.name, kind)) != repr(kind):
            types[column.name] = String()
    return types


_NOT_COLUMNS: dict[str, TypeEngine[Any]] = {
    "after before_id below below_end composed dead_holder decomposed end job_id key_id last_id": String(),
    "reason start to_end to_start token_id": String(),
    "digests job_ids key_ids kinds memory_ids paths session_ids source_ids store_ids version_ids": ARRAY(String()),
    "count count_change keep limit prefix_length size": Integer(),
    "before bytes bytes_change created_after created_before created_from created_to": BigInteger(),
    "dead_until maximum now until": BigInteger(),
    "expected_sha256": LargeBinary(),
}
_TYPES = _column_types() | {name: kind for names, kind in _NOT_COLUMNS.items() for name in names.split()}
"""SQLAlchemy type by parameter name: a column's, or one of those that are no columns. No other name can be used."""

_PARAMETER = re.compile(r"(?<![:\w]):([a-z]\w*)")
_IN_LIST = re.compile(r"IN_LIST\((:\w+)\)")
_EACH = re.compile(r"EACH\((:\w+)\) AS (\w+)")
_FOR_UPDATE = re.compile(r"\s+FOR UPDATE( OF \w+)?( SKIP LOCKED)?")


@dataclass(frozen=True, slots=True)
class Compiled:
    """One dialect's text and the order of its positional parameters."""

    sql: str
    names: tuple[str, ...]

    def arguments(self, parameters: Parameters) -> list[Any]:
        """The values in the order the text wants them."""
        return [parameters[name] for name in self.names]

    def json_arguments(self, parameters: Parameters) -> list[Any]:
        """The same for SQLite, where a list travels as JSON."""
        return [json.dumps(value) if isinstance(value, list) else value for value in self.arguments(parameters)]


def _type(name: str) -> TypeEngine[Any]:
    kind = _TYPES.get(name)
    if kind is None:
        raise LookupError(f"parameter :{name} of a statement is neither a column nor listed with a type of its own")
    return kind


def _compile(sql: str, dialect: Any, type_of: Callable[[str], TypeEngine[Any]] = _type) -> Compiled:
    bound = (bindparam(name, type_=type_of(name)) for name in set(_PARAMETER.findall(sql)))
    compiled = text(sql).bindparams(*bound).compile(dialect=dialect)
    return Compiled(str(compiled), tuple(compiled.positiontup or ()))


def _postgresql(sql: str, type_of: Callable[[str], TypeEngine[Any]] = _type) -> Compiled:
    plain = _EACH.sub(r"unnest(\1) WITH ORDINALITY AS \2 (value, position)", _IN_LIST.sub(r"= ANY(\1)", sql))
    return _compile(plain, asyncpg_dialect(), type_of)  # type: ignore[no-untyped-call]


def _sqlite(sql: str, type_of: Callable[[str], TypeEngine[Any]] = _type) -> Compiled:
    plain = _FOR_UPDATE.sub("", _IN_LIST.sub(r"IN (SELECT value FROM json_each(\1))", sql))
    plain = _EACH.sub(r"(SELECT value, key + 1 AS position FROM json_each(\1)) AS \2", plain)
    return _compile(plain, pysqlite_dialect(), type_of)


class Statement:
    """One SQL statement. Compiling is only text: a statement for one database alone is never run on the other."""

    def __init__(self, sql: str, types: Mapping[str, TypeEngine[Any]] | None = None) -> None:
        """`types`: of the parameters by name, where a statement is made from tables and not written by hand."""
        type_of = _type if types is None else types.__getitem__
        self.sql = sql
        self.postgresql = _postgresql(sql, type_of)
        self.sqlite = _sqlite(sql, type_of)


class Mutation(Statement):
    """A data-changing statement for PostgreSQL, written for one row and for many.

    In the second text every parameter is an array of what the first one takes under the same name. Both return the
    changed rows, with a column `id`.
    """

    def __init__(self, sql: str, many: str) -> None:
        super().__init__(sql)
        dialect = asyncpg_dialect()  # type: ignore[no-untyped-call]
        self.many = _compile(many, dialect, lambda name: ARRAY(_type(name)))


class Batch:
    """Data-changing statements that do not depend on each other's effects, run together.

    PostgreSQL gets them as one statement (common table expressions), which saves round trips; SQLite, which has
    none to save, runs them in order.
    """

    def __init__(self, *parts: Statement) -> None:
        *first, last = (part.sql for part in parts)
        ctes = ",\n".join(f"part{number} AS ({sql})" for number, sql in enumerate(first))
        self.postgresql = _postgresql(f"WITH {ctes}\n{last}")
        self.sqlite: Sequence[Compiled] = tuple(_sqlite(part.sql) for part in parts)
