"""What was deleted elsewhere leaves this host's disk too: contents, paths and digests."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import anthropic
import pytest
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from app.mount.sync.content_cache import ContentCache
from tests.faults.proxy import Proxy
from tests.mount.engines import Mounted, Remote, mounted
from tests.support.servers import Server
from tests.support.waiting import WAIT_SECONDS, until

MARKER = "MARKER-8f2e6c"
TEXT = f"# Notes\n\n{MARKER} lives in this text\n"
PATH = f"/people/{MARKER}/notes.md"


@pytest.fixture
def remote(server: Server, client: anthropic.Anthropic, store: Store) -> Remote:
    return Remote(server, client, store.id)


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy.running(("127.0.0.1", urlsplit(server.base_url).port or 0)) as proxy:
        yield proxy


def traces(directory: Path, *secrets: str) -> list[str]:
    """The files below that hold one of these, in their name or in their raw bytes."""
    found = []
    for above, _, names in os.walk(directory):
        for file in (Path(above, name) for name in names):
            name = str(file.relative_to(directory))
            try:
                data = file.read_bytes()
            except FileNotFoundError:
                continue
            found += [f"{name}: {secret}" for secret in secrets if secret in name or secret.encode() in data]
    return found


def digests(*texts: str) -> list[str]:
    return [hashlib.sha256(text.encode()).hexdigest() for text in texts]


def wait_until_clean(directory: Path, *secrets: str) -> None:
    try:
        until(lambda: traces(directory, *secrets) == [], "nothing is left")
    except AssertionError:
        pytest.fail(f"left: {traces(directory, *secrets)}")


def put_on_disk(one: Mounted, directory: Path, *texts: str) -> None:
    """Let the cache write down what it has, as it does when the feed is lost."""
    one.engine._cache.flush()
    for secret in (MARKER, *digests(*texts)):
        assert traces(directory, secret), f"the test has planted nothing: {secret}"


@pytest.fixture(params=[True, False], ids=["extensions", "vendor-api"])
def one(remote: Remote, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Mounted]:
    server = remote.server
    with mounted(server.base_url, server.api_key, remote.store_id, tmp_path, extensions=request.param) as one:
        yield one


@pytest.mark.parametrize("writer", ["this mount", "somebody else"])
def test_a_deleted_memory_leaves_nothing_on_disk(one: Mounted, remote: Remote, tmp_path: Path, writer: str) -> None:
    if writer == "this mount":
        one.write(PATH, TEXT, durable=True)
    else:
        remote.create(PATH, TEXT)
    one.wait_for(PATH, TEXT)
    put_on_disk(one, tmp_path, TEXT)
    remote.delete(PATH)
    one.wait_for(PATH, None)
    wait_until_clean(tmp_path, MARKER, *digests(TEXT))


def test_what_a_memory_was_before_leaves_nothing_on_disk(one: Mounted, remote: Remote, tmp_path: Path) -> None:
    one.write(PATH, TEXT, durable=True)
    put_on_disk(one, tmp_path, TEXT)
    remote.update(PATH, "nothing", new_path="/others.md")
    one.wait_for("/others.md", "nothing")
    one.wait_for(PATH, None)
    wait_until_clean(tmp_path, MARKER, *digests(TEXT))
    assert traces(tmp_path, "/others.md"), "what is there is remembered"


def test_a_content_that_another_memory_has_stays(one: Mounted, remote: Remote, tmp_path: Path) -> None:
    remote.create("/one.md", TEXT)
    remote.create("/two.md", TEXT)
    for path in ("/one.md", "/two.md"):
        one.wait_for(path, TEXT)
    put_on_disk(one, tmp_path, TEXT)
    remote.delete("/one.md")
    one.wait_for("/one.md", None)
    until(lambda: traces(tmp_path, "/one.md") == [], "the path is forgotten")
    assert one.engine.at_hand(one.entry("/two.md")) == TEXT.encode()
    remote.delete("/two.md")
    one.wait_for("/two.md", None)
    wait_until_clean(tmp_path, MARKER, *digests(TEXT))


def test_a_content_that_another_mount_of_this_host_shows_stays(
    proxy: Proxy, remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = ContentCache(tmp_path / "shared")
    monkeypatch.setattr("tests.mount.engines.ContentCache", lambda directory: shared)
    url, key = remote.server.base_url, remote.server.api_key
    remote.create(PATH, TEXT)
    with (
        mounted(f"http://127.0.0.1:{proxy.port}", key, remote.store_id, tmp_path, name="cut off") as late,
        mounted(url, key, remote.store_id, tmp_path) as one,
    ):
        for each in (one, late):
            each.wait_for(PATH, TEXT)
        proxy.refuse()
        until(lambda: late.engine.status()["feed"] == "lost", "the feed is lost")
        remote.delete(PATH)
        one.wait_for(PATH, None)
        until(lambda: traces(tmp_path / "one", MARKER) == [], "one has forgotten it")
        assert late.texts() == {PATH: TEXT}
        proxy.forward()
        late.wait_for(PATH, None)
        wait_until_clean(tmp_path, MARKER, *digests(TEXT))


def test_what_was_written_offline_and_then_saved_and_deleted_leaves_nothing(
    proxy: Proxy, remote: Remote, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{proxy.port}"
    with mounted(url, remote.server.api_key, remote.store_id, tmp_path) as one:
        proxy.refuse()
        drafts = [f"{TEXT}{number}\n" for number in range(5)]
        for draft in drafts:
            one.write(PATH, draft)
        assert traces(tmp_path / "one", MARKER) == [f"journal: {MARKER}"]
        proxy.forward()
        assert one.engine.flush(WAIT_SECONDS) == []
        put_on_disk(one, tmp_path, drafts[-1])
        wait_until_clean(tmp_path, *drafts[:-1], *digests(*drafts[:-1]))
        one.engine.remove(one.entry(PATH))
        assert one.engine.flush(WAIT_SECONDS) == []
        wait_until_clean(tmp_path, MARKER, *digests(*drafts))


def test_what_was_deleted_while_nothing_was_mounted_goes_with_the_next_start(remote: Remote, tmp_path: Path) -> None:
    server = remote.server
    remote.create("/other.md", "other")
    with mounted(server.base_url, server.api_key, remote.store_id, tmp_path) as one:
        one.write(PATH, TEXT, durable=True)
    assert traces(tmp_path, MARKER)
    remote.delete(PATH)
    with mounted(server.base_url, server.api_key, remote.store_id, tmp_path) as one:
        wait_until_clean(tmp_path, MARKER, *digests(TEXT))
        assert one.engine.at_hand(one.entry("/other.md")) == b"other"


def test_a_store_that_is_deleted_leaves_nothing(
    one: Mounted, remote: Remote, tmp_path: Path, client: anthropic.Anthropic
) -> None:
    one.write(PATH, TEXT, durable=True)
    put_on_disk(one, tmp_path, TEXT)
    client.beta.memory_stores.delete(remote.store_id)
    wait_until_clean(tmp_path, MARKER, *digests(TEXT))


def test_an_old_version_that_is_read_again_is_not_written_down(one: Mounted, remote: Remote, tmp_path: Path) -> None:
    one.write(PATH, TEXT, durable=True)
    old = one.entry(PATH)
    remote.update(PATH, "nothing", new_path="/others.md")
    one.wait_for("/others.md", "nothing")
    one.wait_for(PATH, None)
    assert one.engine.fetch(old) == TEXT.encode()
    one.engine._cache.flush()
    wait_until_clean(tmp_path, MARKER, *digests(TEXT))
