"""`memstore export`, `memstore import` and `memstore pull`: stores out of the service and in again."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from app.cli import operator, places, terminal
from app.cli.names import STORE, STORE_HELP, Candidate, is_meant, is_whole_id, the_one
from app.cli.running import told_when_interrupted, with_storage
from app.contract.errors import InvalidRequest, NotFound
from app.keys.service import DEFAULT_WORKSPACE
from app.settings import Settings, load
from app.storage.contents.disks import room_in, temporary_room
from app.storage.rows.database import Database
from app.storage.storage import Storage
from app.stores.quota import Limits
from app.transfer import queries
from app.transfer.archives.bounds import Bounds
from app.transfer.archives.entries import Entry
from app.transfer.archives.files import new_file
from app.transfer.archives.readers import archive_entries, directory_entries
from app.transfer.archives.spool import Spool
from app.transfer.archives.writers import ArchiveFormat, format_of
from app.transfer.exporting import Exported, Exporter, Exports
from app.transfer.importing import Imported, Imports
from app.transfer.pulling import Pull, Source, finish
from app.transfer.remote import Remote
from app.transfer.sources import plan_of

_GOES_ON = "run the same again: it goes on where it was"
_STDIO = "-"


def export(
    store: Annotated[str, typer.Argument(metavar="[STORE]", help=f"{STORE_HELP} Or name a person by --where.")] = "",
    output: Annotated[
        str, typer.Option(help="File (.tar, .tar.gz, .tgz, .tar.zst, .zip), directory, or - for a tar on stdout.")
    ] = "",
    history: Annotated[bool, typer.Option("--history", help="Every version, not only what is there now.")] = False,
    git: Annotated[str, typer.Option(metavar="DIR", help="A new Git repository instead, a commit per version.")] = "",
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Every store with this pair in its metadata, all versions, and an index. Repeatable: all pairs.",
        ),
    ] = None,
    workspace: Annotated[str, typer.Option(metavar="NAME", help="With --where: only in this workspace.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Copy a store, as it is at one moment, into an archive, a directory or a Git repository; or all of a person's."""
    if bool(store) == bool(where):
        raise typer.BadParameter("name one of STORE and --where")
    if where:
        _export_person(where, workspace, output, is_other=bool(git) or history, as_json=as_json)
        return
    if workspace:
        raise typer.BadParameter("goes with --where", param_hint="--workspace")
    if bool(output) == bool(git):
        raise typer.BadParameter("name one of --output and --git", param_hint="--output")
    archive_format: ArchiveFormat | None = "tar" if output == _STDIO else format_of(output)

    async def work(storage: Storage) -> Exported:
        store_id, caller = await operator.of_store(storage.database, store)
        exports = Exports(storage)
        if git:
            from app.transfer.git_history import GitHistory

            return await GitHistory(storage).export(caller, store_id, Path(git))
        form = archive_format or "directory"
        exporter = await exports.begin(caller, store_id, history=history, form=form)
        if archive_format is None:
            with room_in(output, "what is there is a part of the export: remove it, and name a place with more room"):
                await exporter.into_directory(Path(output))
        elif output == _STDIO:
            await _write(exporter, archive_format, sys.stdout.buffer)
        else:
            with new_file(Path(output)) as file:
                await _write(exporter, archive_format, file)
        return exporter.result

    if git or archive_format is None:
        state = f"what is in {git or output} is a part of the export: remove it"
    else:
        state = "" if output == _STDIO else f"nothing is left at {output}"
    result = with_storage(work, doing=f"exporting {store}", interrupted=state)
    if output != _STDIO:
        if as_json:
            terminal.echo_json(asdict(result))
        else:
            terminal.echo(_summary(result, git or output))
    why = "is no name that Git can hold" if git else "was erased while the export was under way"
    for path in result.left_out:
        terminal.echo(f"memstore: {path!r} {terminal.field(why)}: it is not in the export", err=True)
    for path in result.renamed:
        terminal.echo(f"memstore: {path!r} is no name for this file system; it is in contents/", err=True)


def _export_person(where: list[str], workspace: str, output: str, *, is_other: bool, as_json: bool) -> None:
    from app.cli import person_export
    from app.erasure.selection import parse_where

    if is_other or output in ("", _STDIO):
        raise typer.BadParameter(
            "goes with --output FILE or DIRECTORY alone; all versions are in it", param_hint="--where"
        )
    pairs = parse_where(where)
    done = with_storage(
        lambda storage: person_export.export(storage, pairs, workspace or None, Path(output)),
        doing=f"exporting {', '.join(where)}",
    )
    if as_json:
        terminal.echo_json(asdict(done))
    else:
        counts = f"{done.memories:,} memories and {done.versions:,} versions of {len(done.stores):,} stores"
        terminal.echo(f"{counts} are in {output}; open {person_export.INDEX} in it")
    for path in done.left_out:
        terminal.echo(
            f"memstore: {path!r} was erased while the export was under way: it is not in the export", err=True
        )


def _summary(result: Exported, place: str) -> str:
    versions = "" if result.versions is None else f" and {result.versions:,} versions"
    return f"{result.memories:,} memories{versions} of {result.memory_store_id} at change {result.seq:,} are in {place}"


async def _write(exporter: Exporter, archive_format: ArchiveFormat, file: BinaryIO) -> None:
    async with contextlib.aclosing(exporter.pieces(archive_format)) as pieces:
        async for piece in pieces:
            file.write(piece)
    file.flush()


def import_(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Archive or directory, or - for one on stdin.")],
    into: Annotated[
        str,
        typer.Option(metavar="STORE", help="A store that gets the memories as well: ID, beginning of one, or name."),
    ] = "",
    name: Annotated[str, typer.Option(help="Name of the new store; else the export's, or the source's.")] = "",
    workspace: Annotated[
        str, typer.Option(help="Workspace of the new store, by name; with --into, the one to look in.", metavar="NAME")
    ] = "",
    partial: Annotated[bool, typer.Option("--partial", help="Import what is good though something is not.")] = False,
    name_encoding: Annotated[
        str, typer.Option(metavar="ENCODING", help="Of file names that are not UTF-8, such as cp437, cp932 or gbk.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a store from an export, a directory of Markdown, or any archive of texts: all of it, or nothing.

    Exit status 1 when something was refused.
    """
    if into and name:
        raise typer.BadParameter("goes with a new store; leave out --into or --name", param_hint="--name")
    settings = load()
    bounds = Bounds.of_store(settings.max_memories_per_store, settings.max_import_versions)
    with _entries(source, bounds, name_encoding or None) as entries, Spool() as spool:
        plan = plan_of(entries, spool, default_name=_default_name(source), bounds=bounds)
        plan.name = name or plan.name

        async def work(storage: Storage) -> tuple[dict[str, object], bool]:
            target = None
            if into:
                only = await workspace_id(storage.database, workspace) if workspace else None
                target, caller = await operator.of_store(storage.database, into, only)
            else:
                named = workspace or DEFAULT_WORKSPACE
                caller = operator.in_workspace(await workspace_id(storage.database, named))
            imported = await imports(storage, settings).run(caller, plan, spool, into=target, partial=partial)
            return imported.wire(), bool(imported.refused)

        state = "an import is all or nothing: look with 'memstore stores list' or 'memstore ls' before you run it again"
        result, is_refused = with_storage(work, doing=f"importing {source}", interrupted=state)
    _print_imported(result, as_json=as_json)
    if is_refused:
        raise typer.Exit(1)


def imports(storage: Storage, settings: Settings) -> Imports:
    """The service with the limits of the settings."""
    limits = Limits(settings.max_memories_per_store, settings.max_store_bytes)
    return Imports(storage, limits, max_stores=settings.max_stores, max_versions=settings.max_import_versions)


async def workspace_id(database: Database, name: str) -> str:
    """The ID of a workspace.

    Raises:
        NotFound: there is none of this name.

    """
    row = await database.fetch_one(queries.WORKSPACE_BY_NAME, {"name": name})
    if row is None:
        raise NotFound(f"workspace {name!r} was not found; 'memstore keys create --workspace NAME' makes one")
    found: str = row["id"]
    return found


def _default_name(source: str) -> str:
    if source == _STDIO:
        return "Imported"
    name = Path(os.path.abspath(source)).name
    for suffix in (".tar.gz", ".tar.zst", ".tgz", ".tar", ".zip"):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            name = name[: -len(suffix)]
            break
    return name.encode("utf-8", "replace").decode()[:255] or "Imported"


@contextlib.contextmanager
def _entries(source: str, bounds: Bounds, encoding: str | None) -> Iterator[Iterator[Entry]]:
    if source == _STDIO:
        with tempfile.TemporaryFile() as spooled:
            with temporary_room("what comes in"):
                shutil.copyfileobj(sys.stdin.buffer, spooled)
                spooled.flush()
            yield archive_entries(spooled, bounds, name_encoding=encoding)
        return
    place = Path(source)
    if place.is_dir():
        yield directory_entries(place, bounds, name_encoding=encoding)
        return
    if not place.exists():
        raise InvalidRequest(f"{source!r} is not there")
    if not place.is_file():
        raise InvalidRequest(f"{source!r} is no file and no directory; give an archive, a directory, or - for stdin")
    with place.open("rb") as file:
        yield archive_entries(file, bounds, name_encoding=encoding)


def pull(
    store: Annotated[str, typer.Argument(metavar="STORE", help=f"On the other server. {STORE_HELP}")],
    url: Annotated[str, typer.Option("--from", metavar="URL", help="The other server, as https://api.anthropic.com.")],
    name: Annotated[str, typer.Option(help="Name of the new store; else the same.")] = "",
    api_key_env: Annotated[
        str, typer.Option(metavar="VAR", help="Variable that holds the other server's API key.")
    ] = "ANTHROPIC_API_KEY",
    workspace: Annotated[str, typer.Option(help="Workspace of the new store, by name.")] = DEFAULT_WORKSPACE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Copy a store, with the history that it shows, from any server of the same API.

    When it was stopped, the same command goes on where it was.
    """
    api_key = os.environ.get(api_key_env, "")
    if not api_key:
        raise InvalidRequest(f"{api_key_env} is not set; it must hold an API key of {url}")
    settings = load()

    async def find_workspace(storage: Storage) -> str:
        return await workspace_id(storage.database, workspace)

    found = with_storage(find_workspace)
    store = _on_the_other_server(url, api_key, store)
    source = Source(url, store)
    places.make_place_private(places.Place("MEMSTORE_DATA_DIR", settings.data_dir, places.DATA))
    with contextlib.closing(Remote(url, api_key, store)) as remote:
        job = Pull(remote, source, source.work_directory(settings.data_dir, found))
        try:
            advice = "make room and run the same again: it goes on where it was"
            with room_in(settings.data_dir, advice), told_when_interrupted(_GOES_ON):
                job.read(_show_progress)
        finally:
            _end_progress()

    async def work(storage: Storage) -> Imported:
        caller = operator.in_workspace(found)
        return await finish(job, caller, imports(storage, settings), storage.database, name)

    imported = with_storage(work, is_told=False, interrupted=_GOES_ON)
    if imported.memory_store_id is not None:
        job.forget()
    _print_imported(imported.wire(), as_json=as_json)
    if imported.refused:
        raise typer.Exit(1)


def _on_the_other_server(url: str, api_key: str, store: str) -> str:
    """The ID of the store that a person means."""
    if is_whole_id(STORE, store):
        return store
    with contextlib.closing(Remote(url, api_key, "")) as remote:
        candidates = (Candidate(found.id, found.name) for found in remote.names())
        return the_one(STORE, store, [one for one in candidates if is_meant(STORE, store, one)]).id


def _show_progress(number: int) -> None:
    if sys.stderr.isatty():
        terminal.progress(f"{number:,} versions")


def _end_progress() -> None:
    if sys.stderr.isatty():
        terminal.echo(err=True)


def _print_imported(result: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        terminal.echo_json(result)
        return
    skipped = result["skipped"]
    assert isinstance(skipped, list)
    for each in skipped:
        terminal.echo(f"{each['path']!r}: {terminal.field(each['reason'])}", err=True)
    if result["memory_store_id"] is None:
        terminal.echo("nothing was imported: fix what is listed, or take the rest with --partial")
    else:
        terminal.echo(f"{result['created']:,} memories are in {result['memory_store_id']}; {len(skipped):,} skipped")
