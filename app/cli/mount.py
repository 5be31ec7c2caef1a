"""`memstore mount` and the commands around it: stores as directories. What they do is in docs/mount.md.

The mount itself is imported by each command when it runs, so that the server's commands start without it.
"""

import os
import select
import signal
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import names, terminal
from app.cli.kept import HINT, count_of, lines_of, texts_in
from app.cli.terminal import field

if TYPE_CHECKING:
    from app.mount.daemon.control import ControlClient
    from app.mount.daemon.places import Places

DEFAULT_ROOT = Path("/mnt/memory")
UNSAVED = 1
"""Exit status: something is not on the server."""
REFUSED = 2

Session = Annotated[str | None, typer.Option("--session", metavar="ID", help="Open what this session has attached.")]
Store = Annotated[
    str | None,
    typer.Option(
        "--store", metavar="STORE", help="Open this store (ID, beginning of one, or name), without a session."
    ),
]
Root = Annotated[Path, typer.Option(help="The directory that holds the stores' directories.")]
AnyRoot = Annotated[Path | None, typer.Option("--root", help="Only what is mounted at this root.")]
Mode = Annotated[
    str, typer.Option(help="fuse: a file system; mirror: a directory kept in sync; auto: the first that is available.")
]
PolicyName = Annotated[
    str,
    typer.Option("--on-conflict", help="When somebody else changed the file: merge, last-writer-wins or fail."),
]
CacheDir = Annotated[Path | None, typer.Option(help="Where contents are cached.")]
KeepCache = Annotated[
    bool,
    typer.Option("--keep-cache", help="After the unmount, keep what a mount needs to start without the server."),
]
Timeout = Annotated[float, typer.Option(min=0, help="Seconds to wait for the server.")]


def mount(
    session: Session = None,
    store: Store = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="With --store: no writing.")] = False,
    root: Root = DEFAULT_ROOT,
    mode: Mode = "auto",
    cache_dir: CacheDir = None,
    keep_cache: KeepCache = False,
    on_conflict: PolicyName = "merge",
    allow_other: Annotated[
        bool, typer.Option("--allow-other", help="Let every user of this host read and write in it (FUSE).")
    ] = False,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay, and unmount at the end (Ctrl-C, SIGTERM).")
    ] = False,
) -> None:
    """Open stores as directories below ROOT. Returns when they are live; succeeds if they already are."""
    from app.mount.daemon import daemon

    order = _order(
        session, store, read_only, mode, cache_dir, on_conflict, keep_cache=keep_cache, allow_other=allow_other
    )
    root = _absolute(root)
    places = _places()
    output = sys.stderr.fileno() if foreground else None
    with _ended_by_signals() as ended:
        client, shown = daemon.call(places, "mount", output=output, **order, root=str(root), hold=foreground)
        with client:
            for entry in shown["stores"]:
                terminal.echo(field(f"{entry['path']}  {entry['memory_store_id']}  {_kind(entry)}"))
            if not shown["root_read_only"]:
                terminal.echo(f"note: {root} itself is not read-only ({_why_open(shown)})", err=True)
            if allow_other:
                terminal.echo(f"note: every user of this host can {_doing(shown)} the stores below {root}", err=True)
            _mention_kept(shown, {entry["memory_store_id"] for entry in shown["stores"]})
        if foreground:
            _wait(ended)
            with _running() as client:
                answer = client.call("unmount", root=str(root), timeout=30.0, force=True)
            _report_unsaved(answer)


def unmount(
    root: Root = DEFAULT_ROOT,
    pid: Annotated[int | None, typer.Option(help="What was attached to this process, instead of a root.")] = None,
    timeout: Timeout = 30.0,
    force: Annotated[bool, typer.Option("--force", help="Also while programs use it.")] = False,
) -> None:
    """Save everything and take the stores away. Status 1, with a list, if something could not be saved."""
    with _running() as client:
        answer = client.call("unmount", root=str(_absolute(root)), pid=pid, timeout=timeout, force=force)
    _report_unsaved(answer)


def flush(
    root: AnyRoot = None,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds to wait; without it, as long as it takes.")
    ] = None,
) -> None:
    """Wait until every write so far is on the server. Status 1, with a list, if one is not."""
    with _running() as client:
        answer = client.call("flush", root=str(_absolute(root)) if root else None, timeout=timeout)
    _report_unsaved(answer)


def status(
    root: AnyRoot = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what is mounted, and how it is. Status 1 if nothing is."""
    from app.mount.daemon.control import NotRunning

    known: dict[str, Any] = {"pid": None, "supervisor_pid": None, "restarts": 0, "roots": [], "stores": []}
    known["state_directory"] = str(_places().state)
    try:
        with _connected() as client:
            known = client.call("status", root=str(_absolute(root)) if root else None)
    except NotRunning:
        pass
    known["kept"] = [
        {"memory_store_id": store_id, **kept.to_json()} for store_id, kept in texts_in(Path(known["state_directory"]))
    ]
    if as_json:
        terminal.echo_json(known)
    else:
        terminal.echo("\n".join(_lines_of(known)) if known["stores"] else "nothing is mounted")
        if known["kept"]:
            terminal.echo(f"\n{count_of(len(known['kept']))}; {HINT}:")
        for kept in known["kept"]:
            terminal.echo("\n".join(lines_of(kept["memory_store_id"], kept)))
    if not known["stores"]:
        raise typer.Exit(1)


def run(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND…", help="The command and its arguments.")],
    session: Session = None,
    store: Store = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="With --store: no writing.")] = False,
    root: Root = DEFAULT_ROOT,
    cache_dir: CacheDir = None,
    on_conflict: PolicyName = "merge",
) -> None:
    """Run a command that alone sees the stores, at ROOT, and leave with its exit status."""
    from app.cli.mount_settings import secrets_in_reach
    from app.mount.daemon import daemon, namespaces

    order = _order(session, store, read_only, "fuse", cache_dir, on_conflict)
    root = _absolute(root)
    for name in secrets_in_reach():
        terminal.echo(f"note: the command can read {name} in {Path('.env').resolve()}", err=True)
    client, found = daemon.call(_places(), "stores", **order)
    with client:
        stores = [namespaces.Store(item["directory"], read_only=item["read_only"]) for item in found["stores"]]
        group: list[str] = []

        def serve(descriptors: dict[str, int]) -> None:
            shown = client.call(
                "serve",
                descriptors=list(descriptors.values()),
                **order,
                root=str(root),
                directories=list(descriptors),
            )
            for fd in descriptors.values():
                os.close(fd)
            group.append(shown["group"])

        outside = {name: value for name, value in os.environ.items() if not name.startswith("MEMSTORE_")}
        code = namespaces.run(command, stores, serve, root=str(root), environment=outside)
    with _running() as client:  # another connection: the daemon's worker may have been replaced meanwhile
        _print_unsaved(client.call("unmount", group=group[0], timeout=30.0))
    raise typer.Exit(code)


def attach(
    pid: Annotated[int, typer.Option(help="A process of the sandbox; what is attached ends with it.")],
    session: Session = None,
    store: Store = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="With --store: no writing.")] = False,
    root: Root = DEFAULT_ROOT,
    cache_dir: CacheDir = None,
    on_conflict: PolicyName = "merge",
) -> None:
    """Give stores to a sandbox that is running already, at ROOT in its mount namespace."""
    from app.mount.daemon import daemon

    order = _order(session, store, read_only, "fuse", cache_dir, on_conflict)
    client, shown = daemon.call(_places(), "attach", **order, root=str(root), pid=pid)
    client.close()
    for entry in shown["stores"]:
        terminal.echo(field(f"{entry['path']}  {entry['memory_store_id']}  {_kind(entry)}"))


def _order(
    session: str | None, store: str | None, read_only: bool, mode: str, cache_dir: Path | None, policy: str, *,
    keep_cache: bool = False, allow_other: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """What to open, as a request's members."""
    from app.cli.mount_settings import credentials
    from app.mount.daemon.orders import MODES, Order
    from app.mount.sync.engine import Policy

    if bool(session) == bool(store):
        raise typer.BadParameter("either --session or --store, and not both")
    if read_only and session:
        raise typer.BadParameter("a session's attachments say themselves what is read-only", param_hint="--read-only")
    if mode not in MODES:
        raise typer.BadParameter(f"must be one of {', '.join(MODES)}", param_hint="--mode")
    policies = [known.value for known in Policy]
    if policy not in policies:
        raise typer.BadParameter(f"must be one of {', '.join(policies)}", param_hint="--on-conflict")
    cache = _absolute(cache_dir) if cache_dir else None
    known = credentials()
    if store and not names.is_whole_id(names.STORE, store):
        store = _id_of(store)
    order = Order(known, session, store, read_only, mode, cache, Policy(policy), keep_cache, allow_other)
    return order.to_json()


def _id_of(store: str) -> str:
    """The ID of the store that is meant."""
    from app.cli import api

    with api.connected() as server:
        return api.text(api.store(server, store), "id")


def _places() -> "Places":
    from app.cli.mount_settings import variables
    from app.mount.daemon import places

    return places.find(variables())


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


@contextmanager
def _connected() -> "Iterator[ControlClient]":
    from app.mount.daemon import daemon

    with daemon.connect(_places()) as client:
        yield client


@contextmanager
def _running() -> "Iterator[ControlClient]":
    """The daemon; where none runs, that is the refusal."""
    from app.mount.daemon.control import NotRunning

    try:
        with _connected() as client:
            yield client
    except NotRunning:
        terminal.echo("memstore: nothing is mounted", err=True)
        raise typer.Exit(REFUSED) from None


@contextmanager
def _ended_by_signals() -> Iterator[int]:
    """A descriptor that becomes readable when the process is asked to end; the signals do nothing else meanwhile."""
    readable, written = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    previous = {
        number: signal.signal(number, lambda *_: os.write(written, b"!")) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield readable
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        os.close(readable)
        os.close(written)


def _wait(ended: int) -> None:
    """Wait for a signal; if the daemon goes away first, that is also the end."""
    while True:
        with _running() as client:
            events = select.poll()
            events.register(ended, select.POLLIN)
            events.register(client.fileno(), select.POLLIN)
            if any(fd == ended for fd, _ in events.poll()):
                return
        # The connection ended: with the daemon, or with a worker that is replaced.


def _report_unsaved(answer: dict[str, Any]) -> None:
    _print_unsaved(answer)
    if answer["unsaved"]:
        raise typer.Exit(UNSAVED)


_WHERE = {
    "pending": "not on the server yet; it is in a journal, and the next mount of the same saves it:",
    "kept": "could not be saved; it is kept on this host until you take or discard it ('memstore kept'):",
    "file": "could not be saved; the file stays where it is:",
}
"""What is said of unsaved paths, by where their text is."""


def _print_unsaved(answer: dict[str, Any]) -> None:
    """Say where each text is that is not on the server, and that others are kept from before."""
    for where, sentence in _WHERE.items():
        # A daemon that was started before an upgrade does not say where: it kept all of them in its journals.
        items = [item for item in answer["unsaved"] if item.get("where", "pending") == where]
        if items:
            terminal.echo(sentence, err=True)
        for item in items:
            store_id = item["memory_store_id"]
            more = {
                "pending": f"store {store_id}, journal in {item['journal']}",
                "kept": f"{store_id}/{item.get('kept')}, {item.get('place')}: {item.get('reason')}",
                "file": f"store {store_id}, {item.get('place')}",
            }[where]
            terminal.echo(field(f"  {item['path']}  ({more})"), err=True)
    _mention_kept(answer, said={item.get("kept") for item in answer["unsaved"]})


def _mention_kept(answer: dict[str, Any], stores: set[str] | None = None, said: Collection[str] = ()) -> None:
    """Remind of kept texts. stores: only of these. said: IDs that were told already."""
    found = texts_in(Path(answer.get("state_directory") or _places().state))
    number = sum(kept.id not in said and (stores is None or store_id in stores) for store_id, kept in found)
    if number:
        terminal.echo(f"note: {count_of(number)} on this host: {HINT}", err=True)


def _kind(entry: dict[str, Any]) -> str:
    # A daemon that was started before an upgrade says less.
    is_open = bool(entry.get("allow_other"))
    words = [str(entry["mode"])] + ["read-only"] * entry["read_only"] + ["open to all users"] * is_open
    return ", ".join(words)


def _doing(shown: dict[str, Any]) -> str:
    return "read" if all(entry["read_only"] for entry in shown["stores"]) else "read and change"


def _why_open(shown: dict[str, Any]) -> str:
    mirrored = any(entry["mode"] == "mirror" for entry in shown["stores"])
    return "a mirror's root is an ordinary directory" if mirrored else "it held something, or we may not mount there"


def _lines_of(known: dict[str, Any]) -> Iterator[str]:
    yield f"daemon {known['pid']}" + (f", {known['restarts']} times replaced" if known["restarts"] else "")
    for entry in known["stores"]:
        where = "" if entry["session_id"] is None else f" of {entry['session_id']}"
        yield ""
        yield field(f"{entry['path']}  {entry['memory_store_id']}{where}  ({_kind(entry)})")
        connected = "connected" if entry["connected"] else "NOT CONNECTED"
        saved = f", last write saved {entry['last_sync']}" if entry["last_sync"] else ""  # none yet: nothing to tell
        yield field(f"  {connected}, feed {entry['feed']}{saved}")
        on_disk = {(item["path"], item["reason"]) for item in entry.get("kept", ())}  # told below, with their places
        for name, what in (
            ("pending", "waits for the server"),
            ("unshowable", "can't be shown: a name is too long, or none that a memory may have"),
        ):
            yield from (field(f"  {path}: {what}") for path in entry[name])
        for item in entry["refused"]:
            if (item["path"], item["reason"]) not in on_disk:
                yield field(f"  {item['path']}: refused, {item['reason']}")
        for item in entry["conflicts"]:
            yield field(f"  {item['path']}: conflict, ours is {item['conflict_path']}")
