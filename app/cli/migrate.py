"""`memstore migrate`."""

from app.cli import places, terminal
from app.settings import load
from app.storage.rows import migrations


def migrate() -> None:
    """Bring the database's schema up to date."""
    settings = load()
    places.make_private(settings)
    migrations.upgrade(settings.database_url)
    terminal.echo(f"the database is at revision {migrations.head_revision()}")
