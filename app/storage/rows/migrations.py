"""The schema's revision: bringing it up to date, and telling whether it is."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
from sqlalchemy.engine import make_url

from app.contract.errors import MemstoreError
from app.storage.rows.database import Database
from app.storage.rows.postgres_errors import DatabaseRefused, cause_of, sentence
from app.storage.rows.postgres_url import is_postgres
from app.storage.rows.statements import Statement

if TYPE_CHECKING:
    from alembic.config import Config

_SELECT_REVISION = "SELECT version_num FROM alembic_version"
_REVISION = Statement(_SELECT_REVISION)
_OF_THE_FILE = {
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB,
}  # fmt: skip
"""What SQLite says of a file that a person has to look at, and not of a statement of ours."""


class SchemaOutOfDate(Exception):
    """The database's schema is not the one this program needs; the text says what to do."""


def _scripts() -> Path:
    """The migrations: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).parents[2]
    beside = package.parent / "alembic"
    return beside if (beside / "env.py").exists() else package / "_alembic"


def _config(database_url: str) -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    config.attributes["database_url"] = database_url
    return config


def upgrade(database_url: str, revision: str = "head") -> None:
    """Bring the schema to a revision. Not to be called from a running event loop.

    Raises:
        SchemaOutOfDate: the database has a revision that this program does not know.
        DatabaseRefused: the server refuses, or SQLite's file can't be used.
    """
    if not is_postgres(database_url) and (url := make_url(database_url)).database:
        # Alembic takes longer to import than most commands take to run, and there is seldom something to do.
        if revision == "head" and _embedded_revision(Path(url.database)) == head_revision():
            return
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    from alembic import command
    from alembic.util.exc import CommandError
    from sqlalchemy.exc import DBAPIError

    try:
        command.upgrade(_config(database_url), revision)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.TargetServerAttributeNotMatched) as error:
        if not is_postgres(database_url):
            raise
        raise DatabaseRefused(f"the database can't be migrated: {sentence(error)}") from error
    except DBAPIError as error:
        cause = cause_of(error)
        if cause is None and isinstance(error.orig, sqlite3.OperationalError):
            raise DatabaseRefused(f"the database can't be migrated: {error.orig}") from error
        if cause is None:
            if isinstance(error.orig, sqlite3.Error) and error.orig.sqlite_errorcode & 0xFF in _OF_THE_FILE:
                raise DatabaseRefused(f"{make_url(database_url).database} can't be used: {error.orig}") from error
            raise
        raise DatabaseRefused(f"the database can't be migrated: {sentence(cause)}") from error
    except CommandError as error:
        raise SchemaOutOfDate(
            f"the database can't be migrated: {error}. It may be of a newer version of this program; use that one"
        ) from error


def downgrade(database_url: str, revision: str) -> None:
    """Take the schema back to a revision; `base` is an empty database."""
    from alembic import command

    command.downgrade(_config(database_url), revision)


def _embedded_revision(file: Path) -> str | None:
    """The revision of an SQLite database; `None` if that can't be told by reading, as of one that is not there."""
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            row = connection.execute(_SELECT_REVISION).fetchone()
    except sqlite3.Error:
        return None
    return row[0] if row else None


def head_revision() -> str:
    """The revision this program needs: the number that the last migration's file name begins with."""
    return max(file.name for file in (_scripts() / "versions").glob("[0-9]*.py")).partition("_")[0]


async def require_current(database: Database) -> None:
    """Refuse to work on a schema of another revision.

    Raises:
        SchemaOutOfDate: with what to do about it.

    """
    wanted = head_revision()
    try:
        row = await database.fetch_one(_REVISION, {})
    except MemstoreError as error:
        if "no such table" not in str(error):
            raise  # It is away, or refuses the role.
        row = None
    except Exception as error:
        if "alembic_version" not in str(error):
            raise
        row = None
    found = row["version_num"] if row else None
    if found != wanted:
        state = f"has revision {found}" if found else "has no schema yet"
        raise SchemaOutOfDate(f"the database {state}, this program needs {wanted}: run 'memstore migrate' first")
