"""The `memstore` command."""

import sys
from typing import Annotated

import typer

from app import __version__
from app.cli import fsck, keys, serve
from app.contract.errors import MemstoreError
from app.settings import BadSettings, load
from app.storage import migrations

app = typer.Typer(
    name="memstore",
    help="Memory stores for agents, self-hosted. Settings are MEMSTORE_* variables: see docs/reference/settings.md.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(keys.app, name="keys")
app.command("serve")(serve.serve)
app.command("fsck")(fsck.check)
app.command("sweep")(fsck.sweep)


@app.command()
def migrate() -> None:
    """Bring the database's schema up to date."""
    settings = load()
    migrations.upgrade(settings.database_url)
    typer.echo(f"the database is at revision {migrations.head_revision()}")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"memstore {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Memory stores for agents, self-hosted."""


def main() -> None:
    """Run a command; what a person can mend is one sentence on standard error and exit status 2."""
    try:
        app()
    except (BadSettings, MemstoreError, OSError, migrations.SchemaOutOfDate) as error:
        print(f"memstore: {error}", file=sys.stderr)
        sys.exit(2)
