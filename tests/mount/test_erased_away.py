"""What was erased while a mount was away never comes back from it, and its unsaved text is kept and named."""

import hashlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import anthropic
import pytest
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from app.mount.door.api import StoreApi
from app.mount.mirror.frontend import MirrorFrontEnd
from app.mount.sync.content_cache import ContentCache
from app.mount.sync.engine import StoreEngine
from app.mount.sync.errors import Erased, MountError
from tests.faults.proxy import Proxy
from tests.mount.engines import Mounted, Remote, mounted
from tests.mount.test_engine_erasure import traces
from tests.support.servers import Server
from tests.support.waiting import WAIT_SECONDS, until

PATH = "/people/person.md"


@pytest.fixture
def remote(server: Server, client: anthropic.Anthropic, store: Store) -> Remote:
    return Remote(server, client, store.id)


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy.running(("127.0.0.1", urlsplit(server.base_url).port or 0)) as proxy:
        yield proxy


@pytest.fixture
def marker() -> str:
    return f"MARKER-{uuid.uuid4().hex}"


def text_of(marker: str) -> str:
    return f"# Person\n\n{marker} likes tea\n"


def forget(remote: Remote, marker: str) -> None:
    done = remote.server.cli("forget", "--store", remote.store_id, "--contains", marker, "--yes", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def edit(one: Mounted, marker: str) -> None:
    one.write(PATH, text_of(marker) + "an edit\n")


def rename_the_directory(one: Mounted, marker: str) -> None:
    one.engine.rename_tree("/renamed/", "/others/")
    one.write("/others/person.md", text_of(marker) + "an edit\n")


def move_over_another(one: Mounted, marker: str) -> None:
    one.engine.rename(one.entry("/moved.md"), "/other.md", onto=one.entry("/other.md"))


def test_an_edit_of_a_memory_that_was_erased_meanwhile_is_never_sent(
    proxy: Proxy, remote: Remote, tmp_path: Path, marker: str
) -> None:
    url, key = f"http://127.0.0.1:{proxy.port}", remote.server.api_key
    erased = [PATH, "/renamed/person.md", "/moved.md"]
    for path in erased:
        remote.create(path, text_of(marker))
    remote.create("/other.md", "somebody else\n")
    with mounted(url, key, remote.store_id, tmp_path) as one:
        for path in erased:
            one.wait_for(path, text_of(marker))
        proxy.refuse()
        until(lambda: one.engine.status()["feed"] == "lost", "the feed is lost")
        edit(one, marker)
        rename_the_directory(one, marker)
        move_over_another(one, marker)
        forget(remote, marker)
        proxy.forward()
        one.engine.flush(WAIT_SECONDS)
        for path in (*erased, "/others/person.md"):
            one.wait_for(path, None)
        until(lambda: one.engine.status()["feed"] == "live", "the feed is back")
        assert remote.texts() == {"/other.md": "somebody else\n"}
        assert not any(marker in (text or "") for _, _, text in remote.versions())
        kept = [item for item in one.engine.kept.list() if item.size is not None]
        assert {item.path for item in kept} >= {PATH, "/others/person.md", "/other.md"}
        assert all(item.reason.startswith("erased") for item in kept)
        assert {item["place"] for item in one.engine.status()["kept"]} >= {str(item.place) for item in kept}
        for item in kept:
            one.engine.kept.discard(item.id)
        until(lambda: traces(tmp_path, marker) == [], "nothing else of it is on this host")
        one.engine.stop(0.0)


def test_a_new_file_in_place_of_an_erased_one_is_not_its_text_again(
    remote: Remote, tmp_path: Path, marker: str
) -> None:
    remote.create(PATH, text_of(marker))
    with mounted(remote.server.base_url, remote.server.api_key, remote.store_id, tmp_path) as one:
        one.wait_for(PATH, text_of(marker))
        forget(remote, marker)
        one.wait_for(PATH, None)
        with pytest.raises(Erased):  # an editor that had it open writes it anew
            one.engine.save(PATH, (text_of(marker) + "more\n").encode(), None, durable=True)
        one.engine.save(PATH, b"something about nobody\n", None, durable=True)
        assert remote.texts() == {PATH: "something about nobody\n"}
        one.write(PATH, "something about nobody\nand more\n", durable=True)


def test_an_edit_still_beats_a_plain_delete(proxy: Proxy, remote: Remote, tmp_path: Path, marker: str) -> None:
    url, key = f"http://127.0.0.1:{proxy.port}", remote.server.api_key
    remote.create(PATH, text_of(marker))
    with mounted(url, key, remote.store_id, tmp_path) as one:
        one.wait_for(PATH, text_of(marker))
        proxy.refuse()
        edit(one, marker)
        remote.delete(PATH)
        proxy.forward()
        assert one.engine.flush(WAIT_SECONDS) == []
        assert remote.texts() == {PATH: text_of(marker) + "an edit\n"}


def test_a_mirror_sets_the_edit_of_an_erased_memory_aside(
    proxy: Proxy, remote: Remote, tmp_path: Path, marker: str
) -> None:
    remote.create(PATH, text_of(marker))
    remote.create("/later.md", text_of(marker))
    remote.create("/other.md", "somebody else\n")
    engine = StoreEngine(
        StoreApi(f"http://127.0.0.1:{proxy.port}", remote.store_id, lambda: remote.server.api_key),
        directory=tmp_path / "engine",
        content_cache=ContentCache(tmp_path / "cache"),
        read_only=False,
        label="s1",
    )
    mirror = MirrorFrontEnd(engine, tmp_path / "root", state_dir=tmp_path / "state", read_only=False)
    engine.start()
    mirror.start()
    file, later = tmp_path / "root" / PATH[1:], tmp_path / "root/later.md"
    proxy.refuse()
    with file.open("a") as edited:
        edited.write("an edit\n")
    until(lambda: engine.status()["pending"] == [PATH], "the journal has the edit")
    forget(remote, marker)
    proxy.forward()
    until(lambda: not later.exists(), "the file that nobody edited is gone")
    later.write_text(text_of(marker) + "an edit\n")  # by an editor that had it open

    def kept() -> set[str]:
        return {item.path for item in engine.kept.list()}

    until(lambda: kept() == {PATH, "/later.md"} and not file.exists() and not later.exists(), "both are set aside")
    mirror.flush(WAIT_SECONDS)
    assert remote.texts() == {"/other.md": "somebody else\n"}
    for item in engine.kept.list():
        assert item.reason.startswith("erased")
        engine.kept.discard(item.id)
    until(lambda: traces(tmp_path, marker) == [], "nothing else of it is on this host")
    mirror.stop(5)
    engine.stop(5)


def test_a_refused_token_leaves_only_what_is_not_saved(
    server: Server, remote: Remote, proxy: Proxy, tmp_path: Path, marker: str
) -> None:
    secret = f"mst_{marker}"
    key = server.api_key
    current = [key]
    remote.create(PATH, text_of(marker))
    engine = StoreEngine(
        StoreApi(f"http://127.0.0.1:{proxy.port}", remote.store_id, lambda: current[0]),
        directory=tmp_path / "engine",
        content_cache=ContentCache(tmp_path / "cache"),
        read_only=False,
        label="s1",
    )
    engine.start()
    entry = engine.get(PATH)
    assert entry is not None
    engine.fetch(entry)
    proxy.refuse()
    until(lambda: engine.status()["feed"] == "lost", "the feed is lost")
    assert traces(tmp_path, marker, hashlib.sha256(text_of(marker).encode()).hexdigest())
    engine.save("/unsaved.md", b"not sent yet\n", None)
    current[0] = secret  # as after a revocation: the server knows no such token
    proxy.forward()
    until(lambda: traces(tmp_path, marker, PATH) == [], "the cache is dropped")
    assert engine.at_hand(entry) is None
    assert engine.status()["pending"] == ["/unsaved.md"]
    assert engine.stop(0.1, keep=False) == ["/unsaved.md"]
    with pytest.raises(MountError, match="token"):
        StoreEngine(
            StoreApi(server.base_url, remote.store_id, lambda: secret),
            directory=tmp_path / "engine",
            content_cache=ContentCache(tmp_path / "cache"),
            read_only=False,
            label="s1",
        ).start()
