"""Shortest forms of the sequences in which the model's tests (test_model.py) found a fault."""

import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from urllib.parse import urlsplit

import anthropic
import pytest
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from app.mount.daemon import supervisor
from app.mount.daemon.account import Attachment, Credentials
from app.mount.daemon.groups import Group
from app.mount.daemon.mounts import Mounts
from app.mount.daemon.open_stores import OpenStore
from app.mount.daemon.orders import MIRROR, Order
from app.mount.daemon.places import Places
from app.mount.sync.engine import Policy
from tests.faults.proxy import Proxy
from tests.mount import engines
from tests.mount.engines import Remote
from tests.mount.fake_engine import FakeEngine
from tests.mount.mounted import SECONDS, Mounted, mounted, needs_fuse
from tests.support.servers import Server
from tests.support.waiting import WAIT_SECONDS, until


@pytest.fixture
def engine() -> FakeEngine:
    engine = FakeEngine()
    engine.other_writes("/notes.md", "one\n")
    return engine


@pytest.fixture
def mount(engine: FakeEngine, tmp_path: Path) -> Iterator[Mounted]:
    with mounted(engine, tmp_path / "mnt") as mount:
        yield mount


@needs_fuse
@pytest.mark.parametrize("path", ["/new/x.md", "/new/deep/x.md"])
@pytest.mark.parametrize("missed", [False, True])
def test_a_directory_made_by_others_appears_in_a_listing_that_the_kernel_had(
    engine: FakeEngine, mount: Mounted, path: str, missed: bool
) -> None:
    if missed:
        assert not (mount.path / "new").exists()
    for _ in range(3):
        assert os.listdir(mount.path) == ["notes.md"]
    engine.other_writes(path, "hello")
    mount.told()
    assert sorted(os.listdir(mount.path)) == ["new", "notes.md"]
    assert Path(f"{mount.path}{path}").read_text() == "hello"


@needs_fuse
def test_an_ftruncate_that_changes_nothing_changes_the_times(mount: Mounted) -> None:
    os.utime(mount.path / "notes.md", ns=(10**18, 10**18))
    descriptor = os.open(mount.path / "notes.md", os.O_WRONLY)
    os.ftruncate(descriptor, 4)
    os.close(descriptor)
    assert (mount.path / "notes.md").stat().st_mtime_ns > 10**18


def test_an_engine_that_died_and_comes_back_without_the_server_shows_what_it_showed(
    server: Server, client: anthropic.Anthropic, store: Store, tmp_path: Path
) -> None:
    remote = Remote(server, client, store.id)
    for name in ("others", "gone", "moved"):
        remote.create(f"/a/{name}.md", name)
    with Proxy.running(("127.0.0.1", urlsplit(server.base_url).port or 0)) as proxy:
        url, key = f"http://127.0.0.1:{proxy.port}", server.api_key
        with engines.mounted(url, key, store.id, tmp_path) as one:
            one.write("/a/own.md", "own")
            one.write("/a/own.md", "own again")
            one.engine.remove(one.entry("/a/gone.md"))
            one.engine.rename_tree("/a/", "/b/")
            one.engine.rename(one.entry("/b/moved.md"), "/moved.md")
            remote.update("/b/others.md", "others again")
            one.wait_for("/b/others.md", "others again")
            shown = {"/b/own.md": "own again", "/b/others.md": "others again", "/moved.md": "moved"}
            assert one.texts() == shown
            proxy.refuse()
            until(lambda: one.engine.status()["feed"] == "lost", "the feed is lost")
            one.write("/late.md", "late")
            # What a process that dies now leaves.
            for name in ("one", "one-cache"):
                shutil.copytree(tmp_path / name, tmp_path / name.replace("one", "two"))
            with engines.mounted(url, key, store.id, tmp_path, name="two") as two:
                assert two.texts() == {**shown, "/late.md": "late"}
                proxy.forward()
                assert two.engine.flush(WAIT_SECONDS) == []
    assert [version for version in remote.versions() if version[1] == "/late.md"] == [("created", "/late.md", "late")]


class Custody(supervisor.Custody):
    """What a supervisor keeps, in this process."""

    def __init__(self) -> None:
        self.states: dict[str, bytes] = {}

    def state(self, name: str) -> bytes | None:
        return self.states.get(name)

    def save(self, name: str, state: bytes) -> None:
        self.states[name] = state

    def kept(self) -> dict[str, int]:
        return dict.fromkeys(self.states, -1)


def test_a_worker_that_dies_while_it_takes_over_loses_no_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = Places(run=tmp_path / "run", state=tmp_path / "state", cache=tmp_path / "cache")
    server = Credentials("http://127.0.0.1:1", "key")
    groups = []
    for name in ("near", "far"):
        order = Order(server, name, None, False, MIRROR, None, Policy.MERGE)
        attachment = Attachment(f"memstore_{name}", "Notes", "notes", read_only=False)
        store = SimpleNamespace(attachment=attachment, mode=MIRROR, order=order)
        group = Group(str(tmp_path / name), tmp_path / name, order, stores={"notes": cast("OpenStore", store)})
        groups.append((group.to_json(), group.stores))
    custody, far_answers, near_is_there = Custody(), threading.Event(), threading.Event()
    custody.save("mounts", json.dumps([known for known, _ in groups]).encode())

    def open_(self: Mounts, group: Group, *arguments: object, **options: object) -> None:
        if group.root.name == "far":
            assert far_answers.wait(SECONDS)
        group.stores.update(groups[group.root.name == "far"][1])

    remember = Mounts._remember

    def remember_(self: Mounts) -> None:
        remember(self)
        near_is_there.set()

    monkeypatch.setattr(Mounts, "_open", open_)
    monkeypatch.setattr(Mounts, "_remember", remember_)
    mounts = Mounts(places, custody, lambda: None)
    mounts.take_over()
    try:
        assert near_is_there.wait(SECONDS)
        assert json.loads(custody.states["mounts"]) == [known for known, _ in groups]
    finally:
        far_answers.set()
