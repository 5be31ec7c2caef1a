"""The line by which an administrator's command says which deployment it looks at."""

from pathlib import Path

from sqlalchemy.engine import make_url

from app.cli import terminal
from app.settings import Settings
from app.storage.rows import postgres_url
from app.storage.rows.database import Database
from app.storage.rows.statements import Statement

_ABOUT = Statement(
    """
    SELECT i.id, (SELECT count(*) FROM workspaces) AS workspaces,
           (SELECT coalesce(sum(store_count), 0) FROM workspaces) AS stores
      FROM installation i
    """
)
_SHOWN = 8


async def tell(database: Database, settings: Settings) -> None:
    """Say it on standard error: an answer from another deployment than the one that is meant would be wrong."""
    row = await database.fetch_one(_ABOUT, {})
    if row is None:
        return
    counts = f"{_counted(row['workspaces'], 'workspace')}, {_counted(row['stores'], 'store')}"
    line = f"deployment {row['id'][:_SHOWN]}…, {place(settings)}, {counts}"
    terminal.echo(f"memstore: {terminal.field(line)}", err=True)


def place(settings: Settings) -> str:
    """Where the rows are, without a secret: `SQLite in /srv/data`, `PostgreSQL, database 'notes' on db port 5432`."""
    if settings.is_embedded:
        return f"SQLite in {Path(make_url(settings.database_url).database or '').absolute().parent}"
    return f"PostgreSQL, {postgres_url.parse(settings.database_url)}"


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
