"""`memstore sessions create` and `show`, which speak the API."""

from typing import Annotated, Any

import typer

from app.cli import api, terminal
from app.cli.api import Found, text
from app.cli.names import SESSION_HELP

_MADE_BY_US = "memstore sessions create"
"""Name of the agent and the environment that stand for 'none': a session can't be made without."""
_MODEL = "none"
_PAGE = 100
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def create(
    store: Annotated[
        list[str], typer.Option(help="A store to attach: ID, beginning of one, or name. Repeatable.", metavar="STORE")
    ],
    read_only: Annotated[bool, typer.Option("--read-only", help="The agent may only read them.")] = False,
    title: Annotated[str, typer.Option(help="What it is for; the history shows it as the author.")] = "",
    instructions: Annotated[str, typer.Option(help="How the agent should use the stores.")] = "",
    agent: Annotated[str, typer.Option(metavar="ID", help="The agent; one that stands for none without.")] = "",
    environment: Annotated[str, typer.Option(metavar="ID", help="The environment; likewise.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a session that has stores attached, and print its ID."""
    with api.connected() as server:
        stores = [text(api.store(server, each), "id") for each in store]
        body: Found = {"agent": agent or _agent(server), "environment_id": environment or _environment(server)}
        body["resources"] = [_attachment(each, instructions, read_only=read_only) for each in stores]
        made = server.post("/v1/sessions", {**body, "title": title} if title else body)
    if as_json:
        terminal.echo_json(made)
        return
    session_id = text(made, "id")
    terminal.echo(terminal.field(session_id))
    terminal.echo(
        terminal.field(f"open its stores with: memstore mount --session {session_id} --root memory"), err=True
    )


def _attachment(store_id: str, instructions: str, *, read_only: bool) -> Found:
    access = "read_only" if read_only else "read_write"
    attached = {"type": "memory_store", "memory_store_id": store_id, "access": access}
    return {**attached, "instructions": instructions} if instructions else attached


def _agent(server: api.Api) -> str:
    return _kept(server, "/v1/agents") or text(server.post("/v1/agents", {"name": _MADE_BY_US, "model": _MODEL}), "id")


def _environment(server: api.Api) -> str:
    return _kept(server, "/v1/environments") or text(server.post("/v1/environments", {"name": _MADE_BY_US}), "id")


def _kept(server: api.Api, path: str) -> str:
    """The ID of the one that an earlier call made; empty if there is none."""
    found = server.pages(path, limit=_PAGE)
    return next((text(each, "id") for each in found if text(each, "name") == _MADE_BY_US), "")


def show(
    session: Annotated[str, typer.Argument(metavar="SESSION", help=SESSION_HELP)], as_json: AsJson = False
) -> None:
    """Show one session: title, state, attached stores and where a mount puts them."""
    with api.connected() as server:
        found = api.session(server, session)
    if as_json:
        terminal.echo_json(found)
        return
    lines = [
        ("id", text(found, "id")),
        ("title", text(found, "title") or "-"),
        ("state", f"archived {text(found, 'archived_at')}" if found.get("archived_at") else "idle"),
        ("created", text(found, "created_at")),
    ]
    resources = found.get("resources")
    attached: list[Any] = resources if isinstance(resources, list) else []
    for one in attached:
        if isinstance(one, dict) and one.get("type") == "memory_store":
            access = "read-only" if one.get("access") == "read_only" else "read-write"
            lines.append((text(one, "mount_path"), f"{text(one, 'memory_store_id')}  {access}  {text(one, 'name')}"))
    terminal.pairs(lines)
