"""What the model's tests play with: one server, hosts behind cuttable networks, and who writes to the store."""

import contextlib
import errno
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic
import httpx2

from app.mount.daemon import daemon
from app.mount.daemon.account import Credentials
from app.mount.daemon.control import ControlClient, Disconnected, NotRunning
from app.mount.daemon.orders import FUSE, MIRROR, Order
from app.mount.sync.engine import Policy
from app.mount.sync.kept import KeptHere
from tests.faults.proxy import Proxy
from tests.mount.fuse_mounts import missing_for_fuse
from tests.mount.hosts import Host, Sessions, host_of
from tests.mount.model.reference import failure
from tests.support.servers import Server
from tests.support.waiting import until

SECONDS = 60.0

Texts = dict[str, str]


@dataclass(frozen=True)
class Version:
    """One line of the store's history."""

    operation: str
    memory_id: str
    path: str
    text: str | None


class Place:
    """A host, and the network between it and the server."""

    def __init__(self, host: Host, proxy: Proxy, api_key: str) -> None:
        self.host = host
        self.proxy = proxy
        self.credentials = Credentials(f"http://127.0.0.1:{proxy.port}", api_key)
        self.mounts: list[MountWriter] = []
        self.is_cut = False

    def cut(self, how: str) -> None:
        """how: a method of Proxy that stops everything: refuse, or hang."""
        self.is_cut = True
        getattr(self.proxy, how)()

    def mend(self) -> None:
        self.is_cut = False
        self.proxy.forward()

    def ask(self, command: str, **members: Any) -> dict[str, Any]:
        """Ask the daemon; a worker that has just died is replaced meanwhile."""
        until = time.monotonic() + SECONDS
        while True:
            try:
                with ControlClient(self.host.places.socket) as client:
                    return client.call(command, **members)
            except (Disconnected, NotRunning):
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)

    def mount(self, writer: "MountWriter") -> None:
        order = Order(self.credentials, writer.session_id, None, False, writer.mode, None, Policy.MERGE)
        client, _ = daemon.call(self.host.places, "mount", **order.to_json(), root=str(writer.root), hold=False)
        client.close()

    def kill_worker(self) -> None:
        """Another one takes over."""
        os.kill(int(self.ask("status")["pid"]), signal.SIGKILL)

    def crash(self) -> None:
        """The whole daemon dies; somebody mounts everything again."""
        self.ask("status")  # no worker is being replaced, which the kill might miss
        self.host.kill()
        for writer in self.mounts:
            self.mount(writer)


class MountWriter:
    """A program that works in one mount."""

    has_directories = True

    def __init__(self, place: Place, mode: str, name: str, session_id: str) -> None:
        self.place = place
        self.mode = mode
        self.name = name
        self.session_id = session_id
        self.root = place.host.directory / name
        self.path = self.root / "notes"
        self.unseen_deletes = False
        """A mirror has deletes that it may not have noticed."""

    def __repr__(self) -> str:
        return self.name

    def at(self, path: str) -> str:
        return f"{self.path}{path}"

    def write(self, path: str, text: str) -> None:
        descriptor = os.open(self.at(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self._finish(descriptor, text)

    def append(self, path: str, text: str) -> None:
        self._finish(os.open(self.at(path), os.O_WRONLY | os.O_APPEND), text)

    def _finish(self, descriptor: int, text: str) -> None:
        try:
            data = text.encode()
            while data:
                data = data[os.write(descriptor, data) :]
        finally:
            os.close(descriptor)

    def append_twice(self, path: str, first: str, second: str, between: Callable[[], None]) -> None:
        """Write on where it stands, without O_APPEND, and save in the middle."""
        descriptor = os.open(self.at(path), os.O_RDWR)
        try:
            end = len(os.pread(descriptor, 1 << 20, 0))
            os.pwrite(descriptor, first.encode(), end)
            try:
                os.close(os.dup(descriptor))
            except OSError as error:
                if error.errno != errno.ESTALE:  # kept beside
                    raise
            between()
            os.pwrite(descriptor, second.encode(), end + len(first))
        finally:
            os.close(descriptor)

    def append_after_bad_bytes(self, path: str, bad: bytes, text: str, between: Callable[[], None]) -> None:
        """With one descriptor: bytes that are no text, and a line, before which somebody else writes.

        The bytes are refused at once, or when the rest of a character does not come; then they are kept on the host.
        """
        descriptor = os.open(self.at(path), os.O_WRONLY | os.O_APPEND)
        try:
            is_half = self._is_taken(descriptor, bad)
            between()
            assert self._is_taken(descriptor, text.encode()) != is_half
            assert not is_half or self._is_taken(descriptor, text.encode())
            if is_half:
                self._discard_kept(path, bad)
        finally:
            os.close(descriptor)

    @staticmethod
    def _is_taken(descriptor: int, data: bytes) -> bool:
        try:
            os.write(descriptor, data)
        except OSError as error:
            if error.errno != errno.EILSEQ:
                raise
            return False
        return True

    def _discard_kept(self, path: str, end: bytes) -> None:
        """One text of the path that ends so is kept, and from now on no longer."""
        found = [(store_id, kept) for store_id, kept in KeptHere(self.place.host.places.kept).all()]
        ((store_id, kept),) = [one for one in found if one[1].path == path and one[1].place.read_bytes().endswith(end)]
        KeptHere(self.place.host.places.kept).of(store_id).discard(kept.id)

    def make_special(self, path: str, kind: str) -> None:
        """Make it, and remove it when the mirror has seen it."""
        place = self.at(path)
        if kind == "link":
            os.symlink("nowhere", place)
        elif kind == "pipe":
            os.mkfifo(place)
        else:
            Path(place).write_bytes(b"\xff\xfe")
        until(lambda: path in [item["path"] for item in self.status()["refused"]], f"{path} is refused")
        os.unlink(place)

    def take_kept(self, path: str) -> list[str]:
        """The texts of an erased memory that are kept on the host, as soon as there are any; then no longer."""
        here = KeptHere(self.place.host.places.kept)
        until(lambda: any(kept.path == path for _, kept in here.all()), f"the text of {path} is kept")
        self.flush()
        found = [(store_id, kept) for store_id, kept in here.all() if kept.path == path]
        assert all(kept.reason.startswith("erased") for _, kept in found), found
        texts = [kept.place.read_text() for _, kept in found]
        for store_id, kept in found:
            here.of(store_id).discard(kept.id)
        return texts

    def truncate(self, path: str, size: int) -> None:
        os.truncate(self.at(path), size)

    def save_atomically(self, path: str, text: str) -> None:
        temporary = f"{self.at(path)}.tmp{os.getpid()}"
        Path(temporary).write_text(text)
        try:
            os.rename(temporary, self.at(path))
        except OSError:
            os.unlink(temporary)
            raise

    def rename(self, old: str, new: str) -> None:
        os.rename(self.at(old), self.at(new))
        self.unseen_deletes |= self.mode == MIRROR

    def unlink(self, path: str) -> None:
        os.unlink(self.at(path))
        self.unseen_deletes |= self.mode == MIRROR

    def mkdir(self, path: str) -> None:
        os.mkdir(self.at(path))

    def rmdir(self, path: str) -> None:
        os.rmdir(self.at(path))

    def read(self, path: str) -> str:
        return Path(self.at(path)).read_text()

    def names(self, directory: str) -> set[str]:
        return set(os.listdir(self.at(directory)))

    def texts(self) -> Texts:
        return {
            "/" + os.path.relpath(os.path.join(above, name), self.path): Path(above, name).read_text()
            for above, _, names in os.walk(self.path, onerror=_fail)
            for name in names
        }

    def directories(self) -> set[str]:
        found = {os.path.relpath(above, self.path) for above, _, _ in os.walk(self.path, onerror=_fail)}
        return {"" if path == "." else f"/{path}" for path in found}

    def flush(self, timeout: float | None = SECONDS) -> list[str]:
        unsaved = self.place.ask("flush", root=str(self.root), timeout=timeout)["unsaved"]
        if not unsaved:
            self.unseen_deletes = False
        return [item["path"] for item in unsaved]

    def status(self) -> dict[str, Any]:
        """What is known of it; where a worker has died, as soon as the next one has taken it over."""
        stores: list[dict[str, Any]] = []

        def is_there() -> bool:
            stores[:] = self.place.ask("status", root=str(self.root))["stores"]
            return bool(stores)

        until(is_there, f"{self} is taken over")
        return stores[0]

    def unmount(self) -> None:
        left = self.place.ask("unmount", root=str(self.root), timeout=SECONDS, force=False)["unsaved"]
        assert left == []
        self.place.mounts.remove(self)


def _fail(error: OSError) -> None:
    raise error


class ApiWriter:
    """A program that uses the official SDK. What a mount does in directories, it does with paths."""

    has_directories = False
    mode = "api"
    name = "api"

    def __init__(self, client: anthropic.Anthropic, http: httpx2.Client, store_id: str) -> None:
        self.store_id = store_id
        self._memories = client.beta.memory_stores.memories
        self._versions = client.beta.memory_stores.memory_versions
        self._http = http

    def __repr__(self) -> str:
        return self.name

    def _all(self) -> dict[str, Any]:
        listing = self._memories.list(memory_store_id=self.store_id, view="full", limit=20)
        return {item.path: item for item in listing if item.type == "memory"}

    def _memory(self, path: str) -> Any:
        memories = self._all()
        if path not in memories:
            raise failure(errno.ENOENT)
        return memories[path]

    def texts(self) -> Texts:
        return {path: item.content for path, item in self._all().items()}

    def read(self, path: str) -> str:
        return str(self._memory(path).content)

    def write(self, path: str, text: str) -> None:
        try:
            with self._failures():
                self._update(self._memory(path), content=text)
        except FileNotFoundError:
            with self._failures():
                self._memories.create(self.store_id, path=path, content=text)

    save_atomically = write

    def append(self, path: str, text: str) -> None:
        memory = self._memory(path)
        self._update_as_read(memory, memory.content + text)

    def truncate(self, path: str, size: int) -> None:
        memory = self._memory(path)
        self._update_as_read(memory, memory.content[:size] + "\0" * (size - len(memory.content)))

    def _update_as_read(self, memory: Any, text: str) -> None:
        precondition = {"type": "content_sha256", "content_sha256": memory.content_sha256}
        with self._failures():
            self._update(memory, content=text, precondition=precondition)

    def _update(self, memory: Any, **changes: Any) -> None:
        self._memories.update(memory.id, memory_store_id=self.store_id, **changes)

    def unlink(self, path: str) -> None:
        memory = self._memory(path)
        with self._failures():
            self._memories.delete(memory.id, memory_store_id=self.store_id)

    def rename(self, old: str, new: str) -> None:
        """A file where nothing is, or a directory to where nothing is."""
        memories = self._all()
        if old == new and old in memories:
            return
        with self._failures():
            if old in memories:
                self._update(memories[old], path=new)
                return
            answer = self._http.post(
                f"/v1/memory_stores/{self.store_id}/moves", json={"from": f"{old}/", "to": f"{new}/"}
            )
            if answer.status_code in _ERRNO:
                raise failure(_ERRNO[answer.status_code])
            answer.raise_for_status()

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except anthropic.APIStatusError as error:
            if error.status_code not in _ERRNO:
                raise
            raise failure(_ERRNO[error.status_code]) from error

    def versions(self) -> list[Version]:
        """The oldest first; without what was erased, of which no path and no text are left."""
        listing = list(self._versions.list(memory_store_id=self.store_id, view="full", limit=20))
        assert not any(item.content for item in listing if item.path is None)
        return [
            Version(str(item.operation), item.memory_id, item.path, item.content)
            for item in reversed(listing)
            if item.path is not None
        ]

    def flush(self, timeout: float | None = SECONDS) -> list[str]:
        return []


_ERRNO = {400: errno.EINVAL, 404: errno.ENOENT, 409: errno.EEXIST}

Writer = MountWriter | ApiWriter


@dataclass
class Scene:
    """One store and who writes to it."""

    api: ApiWriter
    mounts: list[MountWriter] = field(default_factory=list)

    @property
    def writers(self) -> list[Writer]:
        return [*self.mounts, self.api]


class World:
    """A server and two hosts, kept over all examples; every example has a store of its own."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._stack = contextlib.ExitStack()
        self.client = self._stack.enter_context(server.client(max_retries=4))
        self.http = self._stack.enter_context(server.http())
        self.sessions = Sessions(self.client)
        self.places: list[Place] = []
        self.scene: Scene

    def _place(self) -> Place:
        proxy = self._stack.enter_context(Proxy.running(("127.0.0.1", int(self.server.base_url.rpartition(":")[2]))))
        return Place(self._stack.enter_context(host_of(self.server)), proxy, self.server.api_key)

    def open(self) -> Scene:
        """A new store, with two mounts and the API on two hosts: FUSE where it can be had, mirrors else."""
        if not self.places:
            self.places = [self._place(), self._place()]
        first, second = self.places
        has_fuse = missing_for_fuse() is None
        store_id = self.sessions.store("Notes")
        self.scene = Scene(ApiWriter(self.client, self.http, store_id))
        wanted = [(first, FUSE if has_fuse else MIRROR, "one"), (second, MIRROR, "mirror")]
        if has_fuse:
            wanted.append((second, FUSE, "two"))
        for place, mode, name in wanted:
            writer = MountWriter(place, mode, name, self.sessions.open(store_id))
            place.mounts.append(writer)
            self.scene.mounts.append(writer)
            place.mount(writer)
        return self.scene

    def erase(self, text: str) -> None:
        """Erase the memories of the scene's store that have the text, as an administrator does."""
        self.server.cli("forget", "--store", self.scene.api.store_id, "--contains", text.strip(), "--yes")

    def mend(self) -> None:
        """Nothing is cut any more."""
        for place in self.places:
            place.mend()

    def settle(self, expected: Texts | None = None) -> Texts:
        """Everything is connected, everybody has saved and shows the same; what that is.

        expected: what it must be.
        """
        self.mend()
        for mount in self.scene.mounts:
            assert mount.flush() == [], f"{mount} can't save: {json.dumps(mount.status(), indent=1)}"
        until = time.monotonic() + SECONDS
        while True:
            shown = {repr(writer): _shown(writer.texts) for writer in self.scene.writers}
            stored = shown.pop("api")
            if all(texts == stored for texts in shown.values()) and (expected is None or stored == expected):
                break
            if time.monotonic() > until:
                raise AssertionError(self._difference(stored, shown, expected))
            time.sleep(0.02)
        for mount in self.scene.mounts:
            assert mount.flush() == []
        assert self.scene.api.texts() == stored, "a flush changed the store after everybody had agreed"
        assert isinstance(stored, dict)
        return stored

    def _difference(self, stored: Texts | str, shown: dict[str, Texts | str], expected: Texts | None) -> str:
        lines = ["they do not come to agree:", f"store: {stored}"]
        if expected is not None:
            lines.append(f"expected: {expected}")
        lines += [f"{name}: {texts}" for name, texts in shown.items() if texts != stored]
        lines += [f"{mount}: {json.dumps(mount.status())}" for mount in self.scene.mounts]
        return "\n".join(lines)

    def close_scene(self) -> None:
        """After an example that went well."""
        for mount in list(self.scene.mounts):
            mount.unmount()
        self.client.beta.memory_stores.delete(self.scene.api.store_id)

    def start_over(self) -> None:
        """After an example that failed: nothing of it is left."""
        for place in self.places:
            place.mend()
            place.mounts.clear()
            place.host.close()
        self.places = []
        if self.server.daemon not in self.server.daemon.running:
            self.server.start()

    def logs(self) -> str:
        return "\n".join(f"--- log of {place.mounts}\n{place.host.log()[-4000:]}" for place in self.places)

    def close(self) -> None:
        self._stack.close()


def _shown(texts: Callable[[], Texts]) -> Texts | str:
    try:
        return texts()
    except OSError as error:  # a file that goes away while it is read
        return str(error)
