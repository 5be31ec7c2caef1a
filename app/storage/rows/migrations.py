"""The schema's revision: bringing it up to date, and telling whether it is."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy.engine import make_url

from app.contract.errors import MemstoreError
from app.storage.rows.database import Database
from app.storage.rows.statements import Statement

_REVISION = Statement("SELECT version_num FROM alembic_version")


class SchemaOutOfDate(Exception):
    """The database's schema is not the one this program needs; the text says what to do."""


def _scripts() -> Path:
    """The migrations: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).parents[2]
    beside = package.parent / "alembic"
    return beside if (beside / "env.py").exists() else package / "_alembic"


def _config(database_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    config.attributes["database_url"] = database_url
    return config


def upgrade(database_url: str, revision: str = "head") -> None:
    """Bring the schema to a revision. Not to be called from a running event loop.

    Raises:
        SchemaOutOfDate: the database has a revision that this program does not know.
    """
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite" and url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    try:
        command.upgrade(_config(database_url), revision)
    except CommandError as error:
        raise SchemaOutOfDate(
            f"the database can't be migrated: {error}. It may be of a newer version of this program; use that one"
        ) from error


def downgrade(database_url: str, revision: str) -> None:
    """Take the schema back to a revision; `base` is an empty database."""
    command.downgrade(_config(database_url), revision)


def head_revision() -> str:
    """The revision this program needs."""
    head = ScriptDirectory.from_config(_config("")).get_current_head()
    assert head is not None
    return head


async def require_current(database: Database) -> None:
    """Refuse to work on a schema of another revision.

    Raises:
        SchemaOutOfDate: with what to do about it.

    """
    wanted = head_revision()
    try:
        row = await database.fetch_one(_REVISION, {})
    except MemstoreError:
        row = None
    except Exception as error:
        if "alembic_version" not in str(error):
            raise
        row = None
    found = row["version_num"] if row else None
    if found != wanted:
        state = f"has revision {found}" if found else "has no schema yet"
        raise SchemaOutOfDate(f"the database {state}, this program needs {wanted}: run 'memstore migrate' first")
