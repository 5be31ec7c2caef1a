"""Many writers on the same few files, with cuts: in the end all mounts agree with the store, and no text is lost."""

import random
import threading
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import anthropic
import pytest
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from app.mount.door.entries import Change
from app.mount.sync.errors import Offline, Refused
from tests.faults.proxy import Proxy
from tests.mount.engines import Mounted, Remote, mounted
from tests.support.servers import Server
from tests.support.waiting import WAIT_SECONDS, until

PATHS = ["/a.md", "/b.md", "/d/a.md", "/d/b.md", "/e/a.md"]
ROUNDS = 60


@pytest.fixture
def remote(server: Server, client: anthropic.Anthropic, store: Store) -> Remote:
    return Remote(server, client, store.id)


class Actor:
    """Writes, renames and removes at random through a mount; `accepted` are the lines that it was told are saved."""

    def __init__(self, one: Mounted, name: str, seed: int) -> None:
        self.one = one
        self.name = name
        self.accepted: list[str] = []
        self._random = random.Random(seed)

    def run(self) -> None:
        for number in range(ROUNDS):
            try:
                self._step(number)
            except (Refused, Offline):
                continue

    def _step(self, number: int) -> None:
        engine, path = self.one.engine, self._random.choice(PATHS)
        entry = engine.get(path)
        dice = self._random.random()
        if entry is None or dice < 0.7:
            line = f"{self.name} {number}\n"
            before = b"" if entry is None else engine.fetch(entry)
            if dice < 0.35:
                engine.save(path, before + line.encode(), entry)
            else:
                engine.save(path, line.encode() + before, entry)
            self.accepted.append(line)
        elif dice < 0.8:
            engine.remove(entry)
        elif dice < 0.9:
            target = self._random.choice(PATHS)
            if target != path:
                engine.rename(entry, target, onto=engine.get(target))
        else:
            engine.rename_tree("/d/", "/f/")
            engine.rename_tree("/f/", "/d/")


class Follower:
    """Keeps a copy of the view from nothing but what is told, as a kernel's cache is kept."""

    def __init__(self, one: Mounted) -> None:
        self.paths = {path: entry.sha256 for path, entry in one.engine.view().items()}
        one.engine.on_change = self.hear

    def hear(self, changes: list[Change]) -> None:
        for change in changes:
            if change.old_path is not None:
                self.paths.pop(change.old_path, None)
            if change.entry is None:
                self.paths.pop(change.path, None)
            else:
                self.paths[change.path] = change.entry.sha256


@pytest.mark.parametrize("extensions", [True, False], ids=["extensions", "vendor-api"])
@pytest.mark.parametrize("cuts", [False, True], ids=["quiet", "cuts"])
def test_everybody_agrees_in_the_end_and_no_line_is_lost(
    server: Server, remote: Remote, tmp_path: Path, extensions: bool, cuts: bool
) -> None:
    with ExitStack() as running:
        proxy = running.enter_context(Proxy.running(("127.0.0.1", urlsplit(server.base_url).port or 0)))
        url = f"http://127.0.0.1:{proxy.port}"
        mounts = [
            running.enter_context(
                mounted(url, server.api_key, remote.store_id, tmp_path, extensions=extensions, name=name)
            )
            for name in ("one", "two")
        ]
        reader = running.enter_context(
            mounted(url, server.api_key, remote.store_id, tmp_path, extensions=extensions, name="reader")
        )
        told = Follower(reader)
        actors = [Actor(one, f"{name}{copy}", 7 * copy) for name, one in enumerate(mounts) for copy in range(2)]
        threads = [threading.Thread(target=actor.run) for actor in actors]
        for thread in threads:
            thread.start()
        while cuts and any(thread.is_alive() for thread in threads):
            proxy.cut()
            threads[0].join(0.1)
        for thread in threads:
            thread.join()
        for one in mounts:
            assert one.engine.flush(WAIT_SECONDS) == []
        texts = remote.texts()
        for one in (*mounts, reader):
            until(lambda one=one: one.texts() == texts, "every mount shows what the server has")  # type: ignore[misc]
        digests = {path: memory.content_sha256 for path, memory in remote.memories().items()}
        until(lambda: told.paths == digests, "who only listened knows it too")
        history = "".join(text or "" for *_, text in remote.versions())
        for actor in actors:
            assert [line for line in actor.accepted if line not in history] == []
