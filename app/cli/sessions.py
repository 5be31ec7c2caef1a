"""`memstore sessions`: what sessions there are, and tokens for their agents."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from app.cli import session_calls, terminal
from app.cli.moments import short
from app.cli.operator import actor
from app.cli.running import with_database
from app.cli.tables import Column, table
from app.contract import clock
from app.contract.limits import SESSION_TOKEN_SECONDS_DEFAULT, SESSION_TOKEN_SECONDS_MAX, SESSION_TOKEN_SECONDS_MIN
from app.sessions.service import list_all, stores_of
from app.sessions.tokens import SessionTokens
from app.storage.rows.database import Database, Row

app = typer.Typer(
    help="Sessions, and tokens for their agents. create and show speak the API; list and token open the database.",
    no_args_is_help=True,
)
app.command()(session_calls.create)
app.command()(session_calls.show)


@app.command()
def token(
    session_id: Annotated[str, typer.Argument(help="ID of the session (sesn_…).")],
    expires_in: Annotated[
        int,
        typer.Option(
            min=SESSION_TOKEN_SECONDS_MIN, max=SESSION_TOKEN_SECONDS_MAX, help="How long it is good, in seconds."
        ),
    ] = SESSION_TOKEN_SECONDS_DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a token for a session's agent: it can use the attached stores and nothing else. It is shown this once."""

    async def work(database: Database) -> None:
        made = await SessionTokens(database).create(actor(), None, session_id, expires_in)
        expires_at = clock.rfc3339(made.row["expires_at"])
        if as_json:
            terminal.echo_json({"token": made.secret, "expires_at": expires_at})
        else:
            terminal.echo(f"token       {made.secret}\nexpires at  {expires_at}")

    with_database(work)


@app.command(name="list")
def list_sessions(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show every session of every workspace."""

    async def work(database: Database) -> None:
        rows = await list_all(database)
        stores = await stores_of(database, [row["id"] for row in rows])
        if as_json:
            terminal.echo_json([_as_json(row, stores.get(row["id"], {})) for row in rows])
            return
        # On a terminal there is no room for what is the same in every line.
        is_one = terminal.is_terminal() and len({row["workspace_name"] for row in rows}) == 1
        columns = [Column("ID"), Column("CREATED"), Column("STATE")]
        columns += [] if is_one else [Column("WORKSPACE", 5)]
        columns += [Column("STORES", 6), Column("TITLE", 5)]
        lines: list[list[str]] = []
        for row in rows:
            line = [row["id"], short(clock.rfc3339(row["created_at"]))]
            line += ["idle" if row["archived_at"] is None else "archived"]
            line += [] if is_one else [row["workspace_name"]]
            line += [", ".join(stores.get(row["id"], {}).values()) or "-", row["title"] or "-"]
            lines.append(line)
        terminal.show(table(columns, lines))

    with_database(work)


def _as_json(row: Row, stores: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "workspace": row["workspace_name"],
        "title": row["title"],
        "created_at": clock.rfc3339(row["created_at"]),
        "archived_at": clock.rfc3339_or_none(row["archived_at"]),
        "stores": [{"id": store_id, "name": name} for store_id, name in stores.items()],
    }
