"""A host with its own mount daemon: commands as a person gives them, and processes that may be killed."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import anthropic

from app.mount.daemon.control import ControlClient
from app.mount.daemon.places import Places
from app.mount.fuse.kernel import mounting
from tests.support.forks import MEMSTORE
from tests.support.processes import short_directory
from tests.support.servers import Server
from tests.support.waiting import until

SECONDS = 60.0


def wait_for(what: str, condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Wait until a condition holds; an AssertionError that names it otherwise."""
    until(condition, what, seconds)


class Host:
    """The directories of one user's daemon, on which commands run."""

    def __init__(self, directory: Path, server: Server) -> None:
        self.directory = directory
        self.server = server
        self.work = directory / "work"
        self.work.mkdir()
        self.root = directory / "mnt"
        self.places = Places(run=directory / "run", state=directory / "state", cache=directory / "cache")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MEMSTORE_")},
            "MEMSTORE_BASE_URL": server.base_url,
            "MEMSTORE_API_KEY": server.api_key,
            "MEMSTORE_RUN_DIR": str(self.places.run),
            "MEMSTORE_STATE_DIR": str(self.places.state),
            "MEMSTORE_CACHE_DIR": str(self.places.cache),
        }

    def memstore(
        self, *arguments: str | Path, check: bool = True, environment: Mapping[str, str | None] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command. environment: changes to this host's; None takes a variable away."""
        changed = {**self.environment, **(environment or {})}
        done = subprocess.run(
            [MEMSTORE, *map(str, arguments)],
            env={name: value for name, value in changed.items() if value is not None},
            cwd=self.work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert not check or done.returncode == 0, (arguments, done.stdout, done.stderr, self.log())
        return done

    def start(self, *arguments: str | Path) -> "subprocess.Popen[str]":
        """Start a command and leave it running."""
        return subprocess.Popen(
            [MEMSTORE, *map(str, arguments)], env=self.environment, cwd=self.work, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def status(self) -> dict[str, Any]:
        """What `memstore status` says."""
        found: dict[str, Any] = json.loads(self.memstore("status", "--json", check=False).stdout)
        return found

    def store(self, name: str) -> dict[str, Any]:
        """What the status says of the store in a directory of this name."""
        return next(entry for entry in self.status()["stores"] if Path(entry["path"]).name == name)

    def ask(self, command: str, **members: Any) -> dict[str, Any]:
        """Ask the daemon without a command's process."""
        with ControlClient(self.places.socket) as client:
            return client.call(command, **members)

    def log(self) -> str:
        """What the daemon printed."""
        return self.places.log.read_text() if self.places.log.exists() else ""

    def kill_worker(self) -> int:
        """Kill the process that serves; its number."""
        pid = int(self.ask("status")["pid"])
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill(self) -> None:
        """Kill the daemon as a whole, and wait until nothing of it is left."""
        try:
            supervisor = int(self.places.lock.read_text())
        except (FileNotFoundError, ValueError):
            return  # it never started
        # The supervisor first, so that it starts no other worker; its number may be another's by now.
        pids = [pid for pid in (supervisor, *children_of(supervisor)) if self._is_ours(pid)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for("the end of the daemon", lambda: not any(map(is_running, pids)))

    def _is_ours(self, pid: int) -> bool:
        try:
            return os.fsencode(self.places.run) in Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return False

    def mounted(self) -> list[str]:
        """What is mounted below this host's directory."""
        below = f"{self.directory}/"
        return [mounted.path for mounted in mounting.table() if mounted.path.startswith(below)]

    def close(self) -> None:
        self.kill()
        for path in reversed(self.mounted()):
            mounting.unmount(path, lazy=True)


def children_of(pid: int) -> list[int]:
    """The processes that a process started and that still are."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def is_running(pid: int) -> bool:
    """Whether a process exists and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextlib.contextmanager
def host_of(server: Server) -> Iterator[Host]:
    """A host whose daemon and mounts are gone afterwards."""
    with short_directory() as directory:
        host = Host(directory, server)
        try:
            yield host
        except Exception as error:
            error.add_note(f"--- log of the mount daemon\n{host.log()}")
            raise
        finally:
            host.close()


class Sessions:
    """Makes sessions with stores attached."""

    def __init__(self, client: anthropic.Anthropic) -> None:
        self.client = client
        self.beta = client.beta
        self._agent = self.beta.agents.create(name="Tester", model="claude-opus-4-5")
        self._environment = self.beta.environments.create(name=f"here {self._agent.id}", config={"type": "self_hosted"})

    def store(self, name: str, **memories: str) -> str:
        """A new store; its ID. memories: content by name of a file, to which `.md` is added."""
        store = self.beta.memory_stores.create(name=name)
        for file, content in memories.items():
            self.beta.memory_stores.memories.create(store.id, path=f"/{file}.md", content=content)
        return store.id

    def open(self, *stores: str, read_only: tuple[str, ...] = ()) -> str:
        """A new session with these stores attached; its ID."""
        resources: list[Any] = [
            {"type": "memory_store", "memory_store_id": store, "access": access}
            for access, ids in (("read_write", stores), ("read_only", read_only))
            for store in ids
        ]
        session = self.beta.sessions.create(
            agent=self._agent.id, environment_id=self._environment.id, resources=resources
        )
        return session.id

    def texts(self, store: str) -> dict[str, str | None]:
        """What a store holds: content by path."""
        memories = self.beta.memory_stores.memories.list(store, view="full")
        return {item.path: item.content for item in memories if item.type == "memory"}

    def history(self, store: str, path: str) -> list[tuple[str, str]]:
        """A memory's versions, oldest first: what was done and by which kind of actor."""
        versions = list(self.beta.memory_stores.memory_versions.list(store))
        return [
            (item.operation, item.created_by.type if item.created_by else "")
            for item in reversed(versions)
            if item.path == path
        ]
