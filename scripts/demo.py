"""`python -m scripts.demo`: the memory API's main job on real files, through the official SDK.

It imports a directory of Markdown into a new memory store, edits, renames, meets two conflicts and resolves
them, reads everything back, walks the history, redacts, and deletes what it made. Then two sessions open stores as
directories and work in them with a shell. Each answer is checked; the exit status is 1 when one is not what it
should be.
"""

import argparse
import contextlib
import hashlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

import anthropic
import httpx2
from anthropic.types.beta.memory_stores import BetaManagedAgentsMemory
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from scripts.demo_administration import Administration
from scripts.demo_mount import Chapter, ChapterError

PROJECT: Final = Path(__file__).parents[1]
CONTENT_MAX_BYTES: Final = 102_400
START_SECONDS: Final = 60.0
CALL_SECONDS: Final = 20.0

console = Console(highlight=False)


class DemoError(Exception):
    """Something is not as it should be; the message is one sentence."""


class OutOfTimeError(BaseException):
    """The demo's time is up. Not an `Exception`: the SDK would take it for a network fault and try again."""


def check(holds: bool, promise: str) -> None:
    """Print a promise that holds.

    Raises:
        DemoError: it does not hold.
    """
    if not holds:
        raise DemoError(f"this does not hold: {promise}")
    console.print(f"  [green]✓[/green] {escape(promise)}")


def announce(what: str, details: str = "") -> None:
    """Print what comes next."""
    console.print(f"[bold]{escape(what)}[/bold] {escape(details)}")


def sha256(text: str) -> str:
    """The digest the service gives for a content: SHA-256 of its UTF-8 bytes, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def read_markdown(sources: Sequence[Path]) -> dict[str, str]:
    """The Markdown files to import: their paths in the store, and their texts.

    Raises:
        DemoError: there is none, or a file can't be a memory.
    """
    files: dict[str, str] = {}
    for source in (given.resolve() for given in sources):
        found = sorted(source.rglob("*.md")) if source.is_dir() else [source]
        for file in found:
            relative = file.relative_to(source.parent)
            text = file.read_text(encoding="utf-8")
            if len(text.encode()) > CONTENT_MAX_BYTES:
                raise DemoError(f"{file} is larger than a memory may be ({CONTENT_MAX_BYTES:,} bytes)")
            files["/" + unicodedata.normalize("NFC", relative.as_posix())] = text
    if len(files) < 2:
        raise DemoError(f"{len(files)} Markdown files in {[str(source) for source in sources]}; 2 are needed")
    return files


def refusal(error: anthropic.APIStatusError) -> dict[str, Any]:
    """The `error` object of a refused call."""
    body = error.body
    inner = body.get("error") if isinstance(body, dict) else None
    return inner if isinstance(inner, dict) else {}


class Demo:
    """The story, one method per chapter, on one store."""

    def __init__(self, client: anthropic.Anthropic, files: dict[str, str]) -> None:
        self.stores = client.beta.memory_stores
        self.memories = self.stores.memories
        self.versions = self.stores.memory_versions
        self.files = files
        self.heads: dict[str, BetaManagedAgentsMemory] = {}
        self.store = self.stores.create(
            name="Demo", description="Markdown of this project", metadata={"made-by": "demo"}
        )
        announce("A new store", f"{self.store.id}, named {self.store.name!r}")

    def import_files(self) -> None:
        """Create one memory per file, with a progress bar."""
        columns = (
            TextColumn("[bold]Importing Markdown[/bold]"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console) as progress:
            for path, text in progress.track(self.files.items(), total=len(self.files)):
                self.heads[path] = self.memories.create(self.store.id, path=path, content=text)
        size = sum(len(text.encode()) for text in self.files.values())
        listed = list(self.memories.list(self.store.id, limit=100))
        digests = {item.path: item.content_sha256 for item in listed if item.type == "memory"}
        check(
            digests == {path: sha256(text) for path, text in self.files.items()},
            f"{len(digests)} memories, {size:,} bytes, each with the digest of its file",
        )

    def update(self, path: str) -> None:
        """Add a line, then send the same text again."""
        announce("Updating", f"{path}")
        before = self.heads[path]
        self.files[path] += "\nA line from the demo.\n"
        after = self.memories.update(before.id, memory_store_id=self.store.id, content=self.files[path])
        check(after.memory_version_id != before.memory_version_id, "the new text is a new version")
        again = self.memories.update(before.id, memory_store_id=self.store.id, content=self.files[path])
        check(again.memory_version_id == after.memory_version_id, "the same text again is no new version")
        self.heads[path] = after

    def rename(self, path: str) -> str:
        """Move a memory; its ID stays. Gives the new path."""
        target = f"/archive{path}"
        announce("Renaming", f"{path} to {target}")
        before = self.heads.pop(path)
        after = self.memories.update(before.id, memory_store_id=self.store.id, path=target)
        check(after.id == before.id and after.path == target, "the memory keeps its ID")
        self.files[target] = self.files.pop(path)
        self.heads[target] = after
        return target

    def meet_path_conflict(self, path: str) -> None:
        """Create where a memory is already."""
        announce("Creating a second memory", f"at {path}")
        try:
            self.memories.create(self.store.id, path=path, content="somebody else's text")
        except anthropic.ConflictError as error:
            told = refusal(error)
            check(told.get("type") == "memory_path_conflict_error", "it is refused with a path conflict")
            check(told.get("conflicting_memory_id") == self.heads[path].id, "the refusal names the memory there")
        else:
            raise DemoError("a second memory was created at a path that was taken")

    def resolve_conflict(self, path: str) -> None:
        """Two writers start from the same text; the second is refused, reads again and merges."""
        announce("Two writers", f"edit {path}, both from the same text")
        start = self.memories.retrieve(self.heads[path].id, memory_store_id=self.store.id)
        text, digest = start.content or "", start.content_sha256
        first, second = "The first writer's line.\n", "The second writer's line.\n"
        self._write_if_unchanged(start.id, text + first, digest)
        console.print("  the first writer saves")
        try:
            self._write_if_unchanged(start.id, text + second, digest)
        except anthropic.ConflictError as error:
            kind = refusal(error).get("type")
            check(
                kind == "memory_precondition_failed_error",
                "the second writer's text is refused as out of date",
            )
        else:
            raise DemoError("an update with an outdated precondition was accepted")
        current = self.memories.retrieve(start.id, memory_store_id=self.store.id)
        merged = (current.content or "") + second
        self.heads[path] = self._write_if_unchanged(start.id, merged, current.content_sha256)
        self.files[path] = merged
        check(merged == text + first + second, "the second writer reads again, merges, and both lines are kept")

    def _write_if_unchanged(self, memory_id: str, text: str, digest: str) -> BetaManagedAgentsMemory:
        return self.memories.update(
            memory_id,
            memory_store_id=self.store.id,
            content=text,
            precondition={"type": "content_sha256", "content_sha256": digest},
        )

    def list_everything(self) -> None:
        """Read the tree's first level, then every text."""
        announce("Listing")
        top = [item.path for item in self.memories.list(self.store.id, depth=1)]
        roots = {path if path.count("/") == 1 else path[: path.index("/", 1) + 1] for path in self.files}
        check(set(top) == roots and len(top) == len(roots), f"depth=1 shows the first level: {', '.join(top)}")
        page = self.memories.list(self.store.id, view="full", limit=100)
        check(len(page.data) <= 20, "a page with view=full holds at most 20 memories")
        texts = {item.path: item.content for item in page if item.type == "memory"}
        check(texts == self.files, f"all pages together are the {len(texts)} texts, byte for byte")

    def walk_history(self, path: str) -> None:
        """Print every version of a memory, newest first."""
        announce("The history", f"of {path}")
        history = list(self.versions.list(self.store.id, memory_id=self.heads[path].id))
        table = Table("version", "operation", "bytes", "path", "author")
        for version in history:
            author = getattr(version.created_by, "api_key_id", "") if version.created_by else ""
            size = "" if version.content_size_bytes is None else str(version.content_size_bytes)
            table.add_row(version.id, version.operation, size, version.path, author)
        console.print(table)
        operations = [version.operation for version in history]
        check(
            operations[-1] == "created" and set(operations[:-1]) == {"modified"},
            "it begins with its creation",
        )
        check(history[0].id == self.heads[path].memory_version_id, "its newest version is the memory's head")

    def redact(self, path: str) -> None:
        """Erase an old version; the head can't be redacted."""
        announce("Redacting", f"the oldest version of {path}")
        oldest = list(self.versions.list(self.store.id, memory_id=self.heads[path].id))[-1]
        self.versions.redact(oldest.id, memory_store_id=self.store.id)
        gone = self.versions.retrieve(oldest.id, memory_store_id=self.store.id)
        emptied = (gone.content, gone.content_sha256, gone.content_size_bytes, gone.path)
        check(emptied == (None, None, None, None), "its content, digest, size and path are gone")
        check(gone.redacted_at is not None and gone.created_by == oldest.created_by, "when and by whom stays")
        try:
            self.versions.redact(self.heads[path].memory_version_id, memory_store_id=self.store.id)
        except anthropic.BadRequestError:
            check(True, "the current version can't be redacted")
        else:
            raise DemoError("the head of a live memory was redacted")

    def delete(self, path: str) -> None:
        """Delete one memory, then the store."""
        announce("Deleting", f"{path}, then the store")
        head = self.heads.pop(path)
        self.memories.delete(
            head.id, memory_store_id=self.store.id, expected_content_sha256=sha256(self.files.pop(path))
        )
        try:
            self.memories.retrieve(head.id, memory_store_id=self.store.id)
        except anthropic.NotFoundError:
            check(True, "the memory is gone")
        else:
            raise DemoError("a deleted memory can still be read")
        newest = next(iter(self.versions.list(self.store.id, memory_id=head.id)))
        check(newest.operation == "deleted" and newest.path == path, "its history ends with the deletion")
        self.stores.delete(self.store.id)
        try:
            self.stores.retrieve(self.store.id)
        except anthropic.NotFoundError:
            check(True, "the store is gone, with everything in it")
        else:
            raise DemoError("a deleted store can still be read")

    def abandon(self) -> None:
        """Remove the store after a failure, if the server still can."""
        with contextlib.suppress(anthropic.APIError):
            self.stores.delete(self.store.id)


def tell(client: anthropic.Anthropic, files: dict[str, str]) -> None:
    """Run the whole story."""
    demo = Demo(client, files)
    try:
        demo.import_files()
        edited, moved = list(files)[:2]
        demo.update(edited)
        moved = demo.rename(moved)
        demo.meet_path_conflict(edited)
        demo.resolve_conflict(edited)
        demo.list_everything()
        demo.walk_history(edited)
        demo.redact(edited)
        demo.delete(moved)
    except BaseException:
        demo.abandon()
        raise


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(base_url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    with httpx2.Client(base_url=base_url, timeout=CALL_SECONDS, trust_env=False) as client:
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(httpx2.TransportError):
                if client.get("/readyz").status_code == httpx2.codes.OK:
                    return
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
    raise DemoError(f"the server did not start; its log:\n{log.read_text(encoding='utf-8', errors='replace')}")


@contextlib.contextmanager
def own_server() -> Iterator[tuple[str, str, dict[str, str]]]:
    """Run a server with the embedded back end and a temporary data directory; gives its URL, key and settings."""
    with tempfile.TemporaryDirectory(prefix="memstore-demo-") as directory:
        secret, port, log = secrets.token_urlsafe(32), _free_port(), Path(directory, "server.log")
        # Whatever the caller's own server is set to must not leak into this one.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MEMSTORE_")}
        settings = {"MEMSTORE_DATA_DIR": str(Path(directory, "data")), "MEMSTORE_BOOTSTRAP_API_KEY": secret}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    Path(sys.executable).with_name("memstore"),
                    "serve",
                    "--host",
                    "127.0.0.1",
                    "--port",
                    str(port),
                ],
                cwd=directory,
                env=environment | settings,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            base_url = f"http://127.0.0.1:{port}"
            _wait_until_ready(base_url, process, log)
            announce("A server of its own", f"at {base_url}, with a temporary data directory")
            yield base_url, secret, settings
        finally:
            process.terminate()
            try:
                process.wait(CALL_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _out_of_time(signal_number: int, frame: FrameType | None) -> NoReturn:
    raise OutOfTimeError("it took longer than it may (see --timeout)")


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.demo", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument(
        "sources",
        nargs="*",
        type=Path,
        default=[PROJECT / "README.md", PROJECT / "docs"],
        help="directories of Markdown, or files (default: this project's own documentation)",
    )
    parser.add_argument("--base-url", help="a running server (default: start one, with temporary data)")
    parser.add_argument("--api-key", help="the key for --base-url (default: $ANTHROPIC_API_KEY)")
    parser.add_argument("--timeout", type=float, default=180, help="seconds for everything (default: 180)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 when everything was as it should be, 1 otherwise."""
    options = _arguments(arguments)
    signal.signal(signal.SIGALRM, _out_of_time)
    signal.setitimer(signal.ITIMER_REAL, options.timeout)
    try:
        with contextlib.ExitStack() as stack:
            files = read_markdown(options.sources)
            settings = None
            if options.base_url:
                base_url, api_key = options.base_url, options.api_key
            else:
                base_url, api_key, settings = stack.enter_context(own_server())
            client = anthropic.Anthropic(base_url=base_url, api_key=api_key, timeout=CALL_SECONDS)
            tell(stack.enter_context(client), files)
            Chapter(client, console).tell(base_url, client.api_key or "")
            Administration(client, console, settings).tell()
    except (DemoError, ChapterError, OutOfTimeError, OSError, UnicodeDecodeError, anthropic.AnthropicError) as error:
        console.print(f"[bold red]The demo failed:[/bold red] {escape(str(error))}")
        return 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    console.print("[bold green]Everything was as it should be.[/bold green]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
