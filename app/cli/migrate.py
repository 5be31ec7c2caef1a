"""`memstore migrate`."""

import typer

from app.settings import load
from app.storage.rows import migrations


def migrate() -> None:
    """Bring the database's schema up to date."""
    settings = load()
    migrations.upgrade(settings.database_url)
    typer.echo(f"the database is at revision {migrations.head_revision()}")
