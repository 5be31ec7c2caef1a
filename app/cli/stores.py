"""`memstore stores` and `memstore ls`: what stores there are, and what is in one. They speak the API."""

import unicodedata
from typing import Annotated
from urllib.parse import quote

import typer

from app.cli import api, terminal
from app.cli.api import text
from app.cli.moments import short
from app.cli.names import STORE_HELP
from app.cli.tables import Column, Styled, table
from app.contract.errors import NotFound

app = typer.Typer(help="Memory stores: list, make and look at them. (Speaks the API.)", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_PAGE = 100


@app.command(name="list")
def list_stores(
    archived: Annotated[bool, typer.Option("--all", help="Archived ones as well.")] = False, as_json: AsJson = False
) -> None:
    """Show the stores of the key's workspace, newest first."""
    with api.connected() as server:
        found = list(api.stores(server, archived=archived))
    if as_json:
        terminal.echo_json(found)
        return
    columns = [Column("ID"), Column("CREATED"), *([Column("STATE")] if archived else []), Column("NAME", least=12)]
    rows = []
    for store in found:
        state = [("archived" if store.get("archived_at") else "open")] if archived else []
        rows.append([text(store, "id"), short(text(store, "created_at")), *state, text(store, "name")])
    terminal.show(table(columns, rows))


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name; need not be unique.")],
    description: Annotated[str, typer.Option(help="What is in it; agents read this.")] = "",
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A pair of your own. Repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make an empty store, and print its ID."""
    pairs = dict(_pair(each) for each in metadata or ())
    with api.connected() as server:
        made = server.post("/v1/memory_stores", {"name": name, "description": description, "metadata": pairs})
    if as_json:
        terminal.echo_json(made)
    else:
        terminal.echo(terminal.field(text(made, "id")))


def _pair(given: str) -> tuple[str, str]:
    key, separator, value = given.partition("=")
    if not key or not separator:
        raise typer.BadParameter(f"must be KEY=VALUE, such as user=u_123, not {given!r}", param_hint="--metadata")
    return key, value


@app.command()
def show(store: Annotated[str, typer.Argument(metavar="STORE", help=STORE_HELP)], as_json: AsJson = False) -> None:
    """Show one store: name, description, metadata, times."""
    with api.connected() as server:
        found = api.store(server, store)
    if as_json:
        terminal.echo_json(found)
        return
    metadata = found.get("metadata")
    pairs = metadata.items() if isinstance(metadata, dict) else ()
    lines = [
        ("id", text(found, "id")),
        ("name", text(found, "name")),
        ("description", text(found, "description") or "-"),
        *((f"metadata {key}", str(value)) for key, value in pairs),
        ("created", text(found, "created_at")),
        ("updated", text(found, "updated_at")),
        ("archived", text(found, "archived_at") or "-"),
    ]
    terminal.pairs(lines)


def ls(
    store: Annotated[str, typer.Argument(metavar="STORE", help=STORE_HELP)],
    path: Annotated[
        str, typer.Argument(metavar="[PATH]", help="A directory or a memory; the leading / may be left out.")
    ] = "/",
    recursive: Annotated[bool, typer.Option("--recursive", "-R", help="Everything below, not one level.")] = False,
    long: Annotated[
        bool, typer.Option("--long", "-l", help="Size in bytes and time of the last change as well.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the memories of a store: one level, as `ls` does. Speaks the API."""
    composed = unicodedata.normalize("NFC", path)  # Paths are; keyboards and file names may not be.
    with api.connected() as server:
        store_id = text(api.store(server, store), "id")
        found = _listed(server, store_id, f"/{composed.removeprefix('/')}", recursive=recursive)
    if as_json:
        terminal.echo_json(found)
        return
    rows = [[_size(item), short(text(item, "updated_at")), _shown(item)] for item in found]
    if long:
        terminal.show(table([Column("BYTES", right=True), Column("CHANGED"), Column("PATH", 20, middle=True)], rows))
    else:
        terminal.show(table([Column("PATH", 20, middle=True)], [row[2:] for row in rows]))


def _listed(server: api.Api, store_id: str, path: str, *, recursive: bool) -> list[api.Found]:
    """What is below a directory; or the one memory at the path."""
    place = f"/v1/memory_stores/{quote(store_id, safe='')}/memories"
    level = {"limit": _PAGE} if recursive else {"limit": _PAGE, "depth": 1}
    found = list(server.pages(place, **level, path_prefix=path if path.endswith("/") else f"{path}/"))
    if found or path.endswith("/"):
        return found
    parent = path[: path.rindex("/") + 1]
    for item in server.pages(place, limit=_PAGE, depth=1, path_prefix=parent):
        if text(item, "path") == path:
            return [item]
    raise NotFound(f"nothing is at {path!r} in memory store {store_id!r}, nor below it")


def _size(item: api.Found) -> str:
    size = item.get("content_size_bytes")
    return f"{size:,}" if isinstance(size, int) else "-"


def _shown(item: api.Found) -> str | Styled:
    path = text(item, "path")
    return Styled(path, "cyan") if path.endswith("/") else path
