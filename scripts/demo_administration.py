"""The demo's end: an agent's mistake is undone, and a person is forgotten, with proof. Run by `scripts.demo`."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import anthropic
import httpx2
from rich.console import Console
from rich.markup import escape

from scripts.demo_mount import ChapterError

MEMSTORE: Final = Path(sys.executable).with_name("memstore")
COMMAND_SECONDS: Final = 120.0
PERSON: Final = "u_123"
SECRET: Final = "Ada's door code is 4711."


class Administration:
    """What an administrator does: see, undo, forget, prove."""

    def __init__(self, client: anthropic.Anthropic, console: Console, settings: Mapping[str, str] | None) -> None:
        """settings: the server's own, where its data can be reached from here; forgetting is a command beside it."""
        self._client = client
        self._stores = client.beta.memory_stores
        self._console = console
        self._settings = settings
        self._undo = contextlib.ExitStack()

    def tell(self) -> None:
        """Run it, and remove what it made."""
        with self._undo, tempfile.TemporaryDirectory(prefix="memstore-demo-") as directory:
            self._undo_a_mistake()
            if self._settings is None:
                self._console.print(
                    "To forget somebody is a command beside the server's data: left out with --base-url."
                )
                return
            self._forget(Path(directory), self._settings)

    def _check(self, holds: bool, promise: str) -> None:
        if not holds:
            raise ChapterError(f"this does not hold: {promise}")
        self._console.print(f"  [green]✓[/green] {escape(promise)}")

    def _store(self, name: str, **metadata: str) -> str:
        store = self._stores.create(name=name, metadata={"made-by": "demo", **metadata})
        self._undo.callback(self._delete, store.id)
        return store.id

    def _delete(self, store: str) -> None:
        with contextlib.suppress(anthropic.NotFoundError):
            self._stores.delete(store)

    def _texts(self, store: str) -> dict[str, str | None]:
        listed = self._stores.memories.list(store, view="full")
        return {memory.path: memory.content for memory in listed if memory.type == "memory"}

    def _undo_a_mistake(self) -> None:
        self._console.print("[bold]An agent wipes its notes, and somebody undoes it[/bold]")
        memories, store = self._stores.memories, self._store("Field notes")
        made = [memories.create(store, path=f"/notes/{day}.md", content=f"What I saw on {day}.\n") for day in "abc"]
        before = self._texts(store)
        last_good = self._call("GET", f"{store}/changes", limit="1000")["last_seq"]
        memories.update(made[0].id, memory_store_id=store, content="")
        memories.update(made[1].id, memory_store_id=store, path="/junk.md")
        memories.delete(made[2].id, memory_store_id=store)
        self._check(self._texts(store) != before, "three changes, and nothing is as it was")
        rolled = self._call("POST", f"{store}/rollback", json={"seq": last_good})
        self._check(
            len(rolled["changes"]) == 3, f"rolled back to change {last_good} in one transaction, 3 versions more"
        )
        self._check(self._texts(store) == before, "every note is back, under its path")
        operations = [version.operation for version in self._stores.memory_versions.list(store)]
        self._check(len(operations) == 9, "and the history keeps the mistake as well as its undoing")

    def _call(self, method: str, path: str, json: Any = None, **query: str) -> dict[str, Any]:
        """One of the routes that are Memstore's own."""
        answer = httpx2.request(
            method,
            f"{str(self._client.base_url).rstrip('/')}/v1/memory_stores/{path}",
            params=query or None,
            json=json,
            headers={"x-api-key": self._client.api_key or ""},
            timeout=COMMAND_SECONDS,
            trust_env=False,
        )
        if answer.status_code != httpx2.codes.OK:
            raise ChapterError(f"{method} {path} answered {answer.status_code}: {answer.text}")
        result: dict[str, Any] = answer.json()
        return result

    def _forget(self, directory: Path, settings: Mapping[str, str]) -> None:
        self._console.print(f"[bold]Forget user {PERSON}, and prove it[/bold]")
        store = self._store("Ada", user=PERSON)
        memory = self._stores.memories.create(store, path="/ada.md", content=SECRET)
        self._stores.memories.update(memory.id, memory_store_id=store, content="Nothing here.")
        report = directory / "report.json"
        forget = ("forget", "--where", f"user={PERSON}", "--yes", "--report", str(report))
        self._run(settings, forget)
        text = report.read_text(encoding="utf-8")
        self._check(json.loads(text)["counts"]["stores"] == 1, "one store is erased, its history with it")
        self._check(SECRET not in text and store not in text, "the signed report tells what went, and nothing of it")
        proof = self._run(settings, ("forget", "verify", str(report)))
        self._check("nothing is left" in proof.lower(), "its signature is good, and nothing is left")
        try:
            self._stores.retrieve(store)
        except anthropic.NotFoundError:
            self._check(True, "the API knows nothing of it")
        else:
            raise ChapterError("an erased store can still be read")

    def _run(self, settings: Mapping[str, str], arguments: Sequence[str]) -> str:
        self._console.print(f"  [dim]$[/dim] memstore {escape(' '.join(arguments))}")
        own = {name: value for name, value in os.environ.items() if not name.startswith("MEMSTORE_")}
        done = subprocess.run(
            [MEMSTORE, *arguments],
            env=own | dict(settings),
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise ChapterError(f"memstore {' '.join(arguments)} failed: {done.stderr.strip()}")
        return done.stdout
