"""`memstore log`, `diff`, `show`, `blame` and `restore`: seeing what became of memories, and undoing it.

The shapes of JSON are those of the API. They are imported where JSON is printed: they take longer to import than a text
takes to make.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, Any, TypeVar

import typer

from app.cli import history_text, moments, operator, terminal
from app.cli.authors import Authors
from app.cli.names import STORE_HELP
from app.cli.running import with_storage
from app.contract.actors import Caller
from app.contract.errors import InvalidRequest
from app.history.authors import names_of
from app.history.blame import Blame
from app.history.comparing import Comparing
from app.history.finding import Finding
from app.history.points import Point
from app.history.restoring import Restoring
from app.history.rollback import Rollback
from app.memories.service import Found, Memories
from app.settings import load
from app.storage.rows.tables import DELETED
from app.storage.storage import Storage
from app.stores.quota import Limits
from app.versions.service import FoundVersion, VersionFilters, Versions

T = TypeVar("T")

_PAGE = 500

Store = Annotated[str, typer.Argument(metavar="STORE", help=STORE_HELP)]
Path = Annotated[
    str, typer.Argument(metavar="PATH", help="Path of the memory, or the one it had; the leading / may be left out.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Ids = Annotated[bool, typer.Option("--ids", help="Show authors by their IDs, not their names.")]
_VERSION_HELP = "a number such as @12, an ID (memver_…), or the beginning of one."


def _in_store(store: str, work: Callable[[Storage, Caller, str], Awaitable[T]]) -> T:
    """Run `work` on the opened storage, as the person at the terminal, with the ID of the store that is meant."""

    async def run(storage: Storage) -> T:
        named = await operator.of_store(storage.database, store)
        return await work(storage, named.caller, named.store_id)

    return with_storage(run)


async def _versions(
    storage: Storage,
    caller: Caller,
    store_id: str,
    memory_id: str | None,
    limit: int | None,
    *,
    since: int | None = None,
) -> list[FoundVersion]:
    """The newest versions, of one memory or of all. since: microseconds since 1970."""
    found: list[FoundVersion] = []
    page: str | None = None
    filters = VersionFilters(memory_id=memory_id, created_from=since)
    while limit is None or len(found) < limit:
        size = _PAGE if limit is None else min(_PAGE, limit - len(found))
        versions, page = await Versions(storage).list_page(
            caller, store_id, filters, with_content=False, limit=size, page=page
        )
        found += versions
        if page is None:
            break
    return found


async def _named_version(
    storage: Storage, caller: Caller, store_id: str, memory_id: str, name: str, *, with_content: bool = False
) -> FoundVersion:
    """A version by what a person calls it; it must be of this memory."""
    version_id = await Finding(storage).version(caller, store_id, name)
    found = await Versions(storage).retrieve(caller, store_id, version_id, with_content=with_content)
    if found.row["memory_id"] != memory_id:
        at = "redacted" if found.row["path"] is None else f"at {found.row['path']!r}"
        raise InvalidRequest(f"memory version {name!r} is of another memory, {found.row['memory_id']!r} ({at})")
    return found


async def _newest_with_content(storage: Storage, caller: Caller, store_id: str, memory_id: str) -> str:
    for version in await _versions(storage, caller, store_id, memory_id, None):
        if version.row["operation"] != DELETED:
            return str(version.row["id"])
    raise InvalidRequest(f"no version with content of memory {memory_id!r} is left")


def _version_json(found: FoundVersion) -> dict[str, Any]:
    from app.versions import wire as version_wire

    return {**version_wire.version(found), "seq": found.row["seq"]}


def log(
    store: Store,
    path: Annotated[str | None, typer.Argument(metavar="[PATH]", help="Only the memory at this path.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many; by default all that are left.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only from then on: RFC 3339, or 15m, 2h, 3d ago.")
    ] = None,
    author: Annotated[
        str | None, typer.Option(metavar="WHO", help="Only by this key's or session's name, or ID, or its beginning.")
    ] = None,
    path_prefix: Annotated[
        str | None, typer.Option(metavar="PATH", help="Only memories at this path or below it.")
    ] = None,
    only_ids: Ids = False,
    as_json: AsJson = False,
) -> None:
    """Show the versions of a store or of one memory, newest first."""
    start = None if since is None else moments.parse(since, "--since")
    below = None if path_prefix is None else f"/{path_prefix.strip('/')}"

    async def work(storage: Storage, caller: Caller, store_id: str) -> tuple[list[FoundVersion], Authors]:
        memory_id = None if path is None else await Finding(storage).memory_at(caller, store_id, path)
        is_filtered = author is not None or below is not None
        found = await _versions(storage, caller, store_id, memory_id, None if is_filtered else limit, since=start)
        return found, await _authors(storage, found, only_ids=only_ids)

    found, authors = _in_store(store, work)
    sources = history_text.moved_from([version.row for version in found])
    chosen = [
        version
        for version in found
        if (author is None or authors.is_meant(version.row, author)) and _is_below(version.row["path"], below)
    ][:limit]
    if as_json:
        terminal.echo_json([_version_json(version) for version in chosen])
    else:
        terminal.show(history_text.log([version.row for version in chosen], authors, sources))


async def _authors(storage: Storage, found: Iterable[FoundVersion], *, only_ids: bool) -> Authors:
    return Authors(await names_of(storage.database, (version.row for version in found)), only_ids=only_ids)


def _is_below(path: str | None, place: str | None) -> bool:
    """Whether a memory is at a place or below it. None: everything is; the path of a redacted version is not known."""
    return place is None or (path is not None and (path == place or path.startswith(f"{place.rstrip('/')}/")))


def diff(
    store: Store,
    path: Path,
    from_version: Annotated[
        str | None, typer.Option("--from", metavar="V", help=f"The version before --to by default: {_VERSION_HELP}")
    ] = None,
    to_version: Annotated[
        str | None, typer.Option("--to", metavar="V", help=f"The newest version by default: {_VERSION_HELP}")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what changed between two versions of a memory."""

    async def work(storage: Storage, caller: Caller, store_id: str) -> Any:
        memory_id = await Finding(storage).memory_at(caller, store_id, path)

        async def version_id(name: str) -> str:
            return str((await _named_version(storage, caller, store_id, memory_id, name)).row["id"])

        if to_version is None:
            (newest,) = await _versions(storage, caller, store_id, memory_id, 1)
            to_id = str(newest.row["id"])
        else:
            to_id = await version_id(to_version)
        from_id = None if from_version is None else await version_id(from_version)
        return await Comparing(storage, Versions(storage)).compare(caller, store_id, to_id, from_id)

    found = _in_store(store, work)
    if as_json:
        from app.history import wire

        terminal.echo_json(wire.comparison(found))
    else:
        terminal.show(history_text.diff(found))


def show(
    store: Store,
    path: Path,
    version: Annotated[
        str | None, typer.Option(metavar="V", help=f"The newest with content by default: {_VERSION_HELP}")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print a memory's text as it is, or as it was in a version."""

    async def work(storage: Storage, caller: Caller, store_id: str) -> FoundVersion:
        memory_id = await Finding(storage).memory_at(caller, store_id, path)
        name = version or await _newest_with_content(storage, caller, store_id, memory_id)
        return await _named_version(storage, caller, store_id, memory_id, name, with_content=True)

    found = _in_store(store, work)
    if as_json:
        terminal.echo_json(_version_json(found))
        return
    if found.content is None:
        state = "a deletion" if found.row["redacted_at"] is None else "redacted"
        raise InvalidRequest(f"memory version {found.row['id']!r} is {state} and has no text")
    terminal.show([terminal.visible(found.content.decode())])


def blame(store: Store, path: Path, only_ids: Ids = False, as_json: AsJson = False) -> None:
    """Show which version, by whom, brought each line of a memory."""

    async def work(storage: Storage, caller: Caller, store_id: str) -> tuple[Any, Authors]:
        memory_id = await Finding(storage).memory_at(caller, store_id, path)
        found = await Blame(storage).blame(caller, store_id, memory_id)
        names = await names_of(storage.database, (line.origin.version for line in found.lines))
        return found, Authors(names, only_ids=only_ids)

    found, authors = _in_store(store, work)
    if as_json:
        from app.history import wire

        terminal.echo_json(wire.blame(found))
        return
    terminal.show(history_text.blame(found, authors))
    if any(line.origin.doubt for line in found.lines):
        doubt = "?: an earlier version, which has expired or is redacted, may have had the line already"
        terminal.echo(doubt, err=True)


def restore(
    store: Store,
    path: Annotated[
        str | None,
        typer.Argument(metavar="[PATH]", help="Path of the memory to restore, or the one it had; without, the store."),
    ] = None,
    version: Annotated[
        str | None, typer.Option(metavar="V", help=f"The version to restore the memory to: {_VERSION_HELP}")
    ] = None,
    to_path: Annotated[
        str | None, typer.Option("--to", metavar="PATH", help="Another path for the restored memory.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Restore the store as it was then: RFC 3339, or 15m, 2h, 3d ago.")
    ] = None,
    seq: Annotated[int | None, typer.Option(min=0, metavar="N", help="Or as it was after this change.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Of a store: only show what would change.")] = False,
    skip_redacted: Annotated[
        bool, typer.Option("--skip-redacted", help="Of a store: leave what was redacted as it is.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Restore a memory to a version, or a whole store to a time or a change; as new versions, so it can be undone."""
    if path is None:
        if (at is None) == (seq is None) or version is not None or to_path is not None:
            raise typer.BadParameter(
                "give PATH and --version for a memory, or --at TIME or --seq N for the whole store"
            )
        _restore_store(store, at, seq, dry_run=dry_run, skip_redacted=skip_redacted, as_json=as_json)
        return
    if version is None or at is not None or seq is not None or dry_run or skip_redacted:
        raise typer.BadParameter("a memory is restored with --version V; --at, --seq, --dry-run are for a whole store")
    _restore_memory(store, path, version, to_path, as_json=as_json)


def _limits() -> Limits:
    settings = load()
    return Limits(settings.max_memories_per_store, settings.max_store_bytes)


def _restore_memory(store: str, path: str, version: str, to_path: str | None, *, as_json: bool) -> None:
    target = to_path if to_path is None or to_path.startswith("/") else f"/{to_path}"

    async def work(storage: Storage, caller: Caller, store_id: str) -> tuple[bool, Found]:
        memory_id = await Finding(storage).memory_at(caller, store_id, path)
        (newest,) = await _versions(storage, caller, store_id, memory_id, 1)
        wanted = await _named_version(storage, caller, store_id, memory_id, version)
        memories = Memories(storage, _limits())
        restored = await Restoring(storage, memories, _limits()).restore(
            caller, store_id, wanted.row["id"], path=target, with_content=as_json
        )
        return restored.row["version_id"] != newest.row["id"], restored

    has_changed, restored = _in_store(store, work)
    if as_json:
        from app.memories import wire as memory_wire

        terminal.echo_json(memory_wire.memory(restored, "full"))
        return
    path = terminal.field(restored.row["path"])
    if has_changed:
        terminal.echo(f"{path} is restored to {version}: {restored.row['version_id']}")
    else:
        terminal.echo(f"{path} is so already; nothing was done")


def _restore_store(
    store: str, at: str | None, seq: int | None, *, dry_run: bool, skip_redacted: bool, as_json: bool
) -> None:
    point = Point(seq, None if at is None else moments.parse(at))

    async def work(storage: Storage, caller: Caller, store_id: str) -> tuple[str, Any]:
        rollback = Rollback(storage, _limits())
        return store_id, await rollback.roll_back(caller, store_id, point, skip_redacted=skip_redacted, dry_run=dry_run)

    store_id, done = _in_store(store, work)
    if as_json:
        from app.history import wire

        terminal.echo_json(wire.rollback(store_id, done))
    else:
        terminal.show(history_text.rollback(done))
