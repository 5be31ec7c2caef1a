"""`memstore keys`: API keys and the workspaces they belong to."""

from typing import Annotated

import typer

from app.cli import terminal
from app.cli.moments import short
from app.cli.operator import actor
from app.cli.running import with_database
from app.cli.tables import Column, table
from app.contract import clock
from app.keys.service import Keys
from app.storage.rows.database import Database

app = typer.Typer(help="API keys and the workspaces they belong to.", no_args_is_help=True)


@app.command()
def create(
    workspace: Annotated[str, typer.Option(help="Workspace the key belongs to; made if it is new.")],
    name: Annotated[str, typer.Option(help="A name to tell keys apart.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a key. Its secret is shown this once."""
    if not workspace.strip() or not workspace.isprintable():
        raise typer.BadParameter("must be a name without control characters", param_hint="--workspace")

    async def work(database: Database) -> None:
        key = await Keys(database).create(workspace, name, actor=actor())
        if as_json:
            terminal.echo_json({"id": key.id, "secret": key.secret, "workspace_id": key.workspace_id})
        else:
            terminal.echo(f"id         {key.id}\nsecret     {key.secret}")
            terminal.echo(terminal.field(f"workspace  {key.workspace_id} ({workspace})"))

    with_database(work)


@app.command(name="list")
def list_keys(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show every key, without secrets."""

    async def work(database: Database) -> None:
        keys = [
            {
                "id": row["id"],
                "name": row["name"],
                "workspace_id": row["workspace_id"],
                "workspace": row["workspace_name"],
                "created_at": clock.rfc3339(row["created_at"]),
                "revoked_at": clock.rfc3339_or_none(row["revoked_at"]),
            }
            for row in await Keys(database).list_all()
        ]
        if as_json:
            terminal.echo_json(keys)
            return
        rows = [
            (
                str(key["id"]),
                f"revoked {short(str(key['revoked_at']))}" if key["revoked_at"] else "good",
                str(key["workspace"]),
                str(key["name"] or "-"),
            )
            for key in keys
        ]
        terminal.show(table([Column("ID"), Column("STATE"), Column("WORKSPACE", 6), Column("NAME", 6)], rows))

    with_database(work)


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(help="ID of the key (apikey_…).")]) -> None:
    """End a key. Running servers refuse it within 5 seconds."""

    async def work(database: Database) -> None:
        await Keys(database).revoke(key_id, actor=actor())
        terminal.echo(f"{key_id} is revoked")

    with_database(work)
