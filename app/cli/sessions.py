"""`memstore sessions`: what sessions there are, and tokens for their agents."""

from typing import Annotated

import typer

from app.cli import terminal
from app.cli.operator import actor
from app.cli.running import with_database
from app.contract import clock
from app.contract.limits import SESSION_TOKEN_SECONDS_DEFAULT, SESSION_TOKEN_SECONDS_MAX, SESSION_TOKEN_SECONDS_MIN
from app.sessions.service import list_all
from app.sessions.tokens import SessionTokens
from app.storage.rows.database import Database

app = typer.Typer(help="Sessions, and tokens for their agents.", no_args_is_help=True)


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
        sessions = [
            {
                "id": row["id"],
                "workspace": row["workspace_name"],
                "title": row["title"],
                "created_at": clock.rfc3339(row["created_at"]),
                "archived_at": clock.rfc3339_or_none(row["archived_at"]),
            }
            for row in await list_all(database)
        ]
        if as_json:
            terminal.echo_json(sessions)
            return
        for session in sessions:
            state = f"archived {session['archived_at']}" if session["archived_at"] else "idle"
            line = f"{session['id']}  {session['workspace']}  {session['title'] or '-'}  {state}"
            terminal.echo(terminal.field(line))

    with_database(work)
