"""The demo's last chapter: sessions that meet their memory as files. Run by `scripts.demo`."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import anthropic
from anthropic.types.beta import BetaManagedAgentsSession
from rich.console import Console
from rich.markup import escape
from rich.table import Table

MEMSTORE: Final = Path(sys.executable).with_name("memstore")
COMMAND_SECONDS: Final = 60.0

AGENT: Final = """\
cd "$MEMORY"
cat handbook/rules.md
mkdir -p team-notes/people
echo '# Ada' > team-notes/people/ada.md
echo 'Likes short answers.' >> team-notes/people/ada.md
sed -i 's/short/short, friendly/' team-notes/people/ada.md
mv team-notes/people/ada.md team-notes/ada.md
"""
"""What an agent's tools do, as a shell script."""


class ChapterError(Exception):
    """Something is not as it should be; the message is one sentence."""


class Sandbox:
    """A place with the stores of one session as directories, until its block ends."""

    def __init__(self, session: BetaManagedAgentsSession, base_url: str, api_key: str, directory: Path) -> None:
        self.session = session
        self.root = directory / session.id
        own = {name: value for name, value in os.environ.items() if not name.startswith("MEMSTORE_")}
        self._environment = own | {
            "MEMSTORE_BASE_URL": base_url,
            "MEMSTORE_API_KEY": api_key,
            **{f"MEMSTORE_{place}_DIR": str(directory / place.lower()) for place in ("RUN", "STATE", "CACHE")},
        }

    def memstore(self, *arguments: str) -> str:
        """Run a command of the mount; what it printed."""
        done = subprocess.run(
            [MEMSTORE, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise ChapterError(f"memstore {' '.join(arguments)} failed: {done.stderr.strip()}")
        return done.stdout

    @contextlib.contextmanager
    def mounted(self) -> Iterator[str]:
        """Open the session's stores below the root; how each was opened."""
        try:
            yield self.memstore("mount", "--session", self.session.id, "--root", str(self.root))
        finally:
            self.memstore("unmount", "--root", str(self.root))

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a shell script as an agent's tool would: it knows where its memory is, and no key."""
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "MEMORY": str(self.root)}
        return subprocess.run(
            ["sh", "-ec", script],
            env=environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )

    def save(self) -> None:
        """Wait until the server has everything."""
        self.memstore("flush", "--root", str(self.root))


class Chapter:
    """Two stores, two sessions, and what they do with files."""

    def __init__(self, client: anthropic.Anthropic, console: Console) -> None:
        self.beta = client.beta
        self.console = console
        self._undo = contextlib.ExitStack()

    def check(self, holds: bool, promise: str) -> None:
        """Print a promise that holds; end the demo where it does not."""
        if not holds:
            raise ChapterError(f"this does not hold: {promise}")
        self.console.print(f"  [green]✓[/green] {escape(promise)}")

    def say(self, what: str) -> None:
        """Print what comes next."""
        self.console.print(f"[bold]{escape(what)}[/bold]")

    def tell(self, base_url: str, api_key: str) -> None:
        """Run it, and remove what it made."""
        with self._undo, tempfile.TemporaryDirectory(prefix="memstore-demo-") as directory:
            notes, handbook = self._store("Team notes"), self._store("Handbook")
            self.beta.memory_stores.memories.create(handbook, path="/rules.md", content="Be kind.\n")
            first, second = self._session(notes, handbook), self._session(notes, handbook)
            places = [Sandbox(session, base_url, api_key, Path(directory)) for session in (first, second)]
            with places[0].mounted() as opened:
                self.console.print(escape(opened.rstrip()))
                self._work(places[0])
                with places[1].mounted():
                    self._go_on(places[1])
                self._see(places[0])
            self._history(notes, [first, second])

    def _store(self, name: str) -> str:
        store = self.beta.memory_stores.create(name=name, metadata={"made-by": "demo"})
        self._undo.callback(self.beta.memory_stores.delete, store.id)
        return store.id

    def _session(self, notes: str, handbook: str) -> BetaManagedAgentsSession:
        name = f"demo {os.urandom(4).hex()}"
        agent = self.beta.agents.create(name=name, model="claude-opus-4-8")
        self._undo.callback(self.beta.agents.archive, agent.id)
        environment = self.beta.environments.create(name=name, config={"type": "self_hosted"})
        self._undo.callback(self.beta.environments.delete, environment.id)
        session = self.beta.sessions.create(
            agent=agent.id,
            environment_id=environment.id,
            resources=[
                {"type": "memory_store", "memory_store_id": notes, "access": "read_write"},
                {"type": "memory_store", "memory_store_id": handbook, "access": "read_only"},
            ],
        )
        self._undo.callback(self.beta.sessions.delete, session.id)
        return session

    def _work(self, sandbox: Sandbox) -> None:
        self.say("A session's agent works in its memory")
        for line in AGENT.splitlines():
            self.console.print(f"  [dim]$[/dim] {escape(line)}")
        done = sandbox.shell(AGENT)
        self.check(done.returncode == 0 and done.stdout == "Be kind.\n", "every command did what it does on a disk")
        refused = sandbox.shell("echo 'be rude' > \"$MEMORY/handbook/rules.md\"")
        self.check(refused.returncode != 0, f"the read-only store refuses it: {refused.stderr.strip()}")
        sandbox.save()

    def _go_on(self, sandbox: Sandbox) -> None:
        self.say("A second session opens the same store")
        read = sandbox.shell('cat "$MEMORY/team-notes/ada.md"')
        self.check(read.stdout == "# Ada\nLikes short, friendly answers.\n", "it sees the note of the first")
        done = sandbox.shell("echo 'Works on engines.' >> \"$MEMORY/team-notes/ada.md\"")
        self.check(done.returncode == 0, "it adds a line")
        sandbox.save()

    def _see(self, sandbox: Sandbox) -> None:
        script = 'until grep -q engines "$MEMORY/team-notes/ada.md"; do sleep 0.05; done'
        self.check(sandbox.shell(script).returncode == 0, "and the first one sees it, without doing anything")

    def _history(self, store: str, sessions: list[BetaManagedAgentsSession]) -> None:
        self.say("The history names both")
        versions = list(self.beta.memory_stores.memory_versions.list(store))
        table = Table("operation", "path", "bytes", "author")
        authors = []
        for version in versions:
            author = getattr(version.created_by, "session_id", "nobody")
            authors.append(author)
            table.add_row(version.operation, version.path, str(version.content_size_bytes), author)
        self.console.print(table)
        first, second = (session.id for session in sessions)
        self.check(authors == [second, first, first, first, first], "one version for each edit, by its session")
        self.check(len({version.memory_id for version in versions}) == 1, "all of them of one memory, moved or not")
