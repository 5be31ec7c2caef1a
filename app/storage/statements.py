"""SQL as text, written once with named parameters and compiled once for each database.

Parameters are written `:like_this`; their types come from `_TYPES`, so that PostgreSQL never has to guess.
Two notations stand for what the databases spell differently:

- `IN_LIST(:names)`: membership in a list parameter (an array on PostgreSQL, JSON on SQLite);
- `FOR UPDATE`, `FOR UPDATE SKIP LOCKED`: dropped on SQLite, whose write transactions hold the only write lock.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Integer, LargeBinary, SmallInteger, String, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg_dialect
from sqlalchemy.dialects.sqlite.pysqlite import dialect as pysqlite_dialect
from sqlalchemy.types import TypeEngine

Parameters = Mapping[str, Any]

_TYPES: dict[str, TypeEngine[Any]] = {
    "sha256": LargeBinary(),
    "expected_sha256": LargeBinary(),
    "secret_sha256": LargeBinary(),
    "content": LargeBinary(),
    "size": Integer(),
    "operation": SmallInteger(),
    "seq": BigInteger(),
    "last_seq": BigInteger(),
    "token": BigInteger(),
    "limit": Integer(),
    "keep": Integer(),
    "count_change": Integer(),
    "bytes_change": BigInteger(),
    "prefix_length": Integer(),
    "count": Integer(),
    "bytes": BigInteger(),
    "maximum": BigInteger(),
    "paths": ARRAY(String()),
    "version_ids": ARRAY(String()),
    "store_ids": ARRAY(String()),
    **dict.fromkeys(
        ("now", "until", "before", "created_at", "updated_at", "archived_at", "created_from", "created_to"),
        BigInteger(),
    ),
}
"""SQLAlchemy type by parameter name; a name that is not here is text."""

_PARAMETER = re.compile(r"(?<![:\w]):([a-z]\w*)")
_IN_LIST = re.compile(r"IN_LIST\((:\w+)\)")
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


def _bound(sql: str) -> Any:
    names = set(_PARAMETER.findall(sql))
    return text(sql).bindparams(*(bindparam(name, type_=_TYPES.get(name, String())) for name in names))


def _compile(sql: str, dialect: Any) -> Compiled:
    compiled = _bound(sql).compile(dialect=dialect)
    return Compiled(str(compiled), tuple(compiled.positiontup or ()))


def _postgresql(sql: str) -> Compiled:
    return _compile(_IN_LIST.sub(r"= ANY(\1)", sql), asyncpg_dialect())  # type: ignore[no-untyped-call]


def _sqlite(sql: str) -> Compiled:
    plain = _FOR_UPDATE.sub("", _IN_LIST.sub(r"IN (SELECT value FROM json_each(\1))", sql))
    return _compile(plain, pysqlite_dialect())


class Statement:
    """One SQL statement. Compiling is only text: a statement for one database alone is never run on the other."""

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.postgresql = _postgresql(sql)
        self.sqlite = _sqlite(sql)


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
