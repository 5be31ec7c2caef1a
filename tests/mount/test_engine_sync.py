"""What a front end does is in the store, and what others do is in the view: with the change feed and without."""

import errno
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import anthropic
import pytest
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from app.mount.door.api import StoreApi
from app.mount.door.entries import Change, Entry
from app.mount.door.stream import Watch
from app.mount.door.wire import Heartbeat, Message, Truncated
from app.mount.sync.errors import MountError, Refused
from tests.mount.engines import Mounted, Remote, mounted
from tests.support.servers import Server
from tests.support.waiting import WAIT_SECONDS, until


@pytest.fixture
def remote(server: Server, client: anthropic.Anthropic, store: Store) -> Remote:
    return Remote(server, client, store.id)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write waits for the server, however busy the machine is; what the journal does is tested elsewhere."""
    monkeypatch.setattr("app.mount.sync.uploader.PATIENCE_SECONDS", WAIT_SECONDS)


@pytest.fixture(params=[True, False], ids=["extensions", "vendor-api"])
def extensions(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def one(remote: Remote, tmp_path: Path, extensions: bool) -> Iterator[Mounted]:
    server = remote.server
    with mounted(server.base_url, server.api_key, remote.store_id, tmp_path, extensions=extensions) as one:
        yield one


def test_the_view_is_the_store(remote: Remote, tmp_path: Path, extensions: bool) -> None:
    texts = {f"/{number // 10}/{number}.md": f"text {number}\n" for number in range(130)}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(remote.create, texts, texts.values()))
    server = remote.server
    with mounted(server.base_url, server.api_key, remote.store_id, tmp_path, extensions=extensions) as one:
        assert one.texts() == texts
        shown, there = one.entry("/0/1.md"), remote.memories()["/0/1.md"]
        assert (shown.memory_id, shown.version_id, shown.sha256, shown.size, shown.path) == (
            there.id, there.memory_version_id, there.content_sha256, there.content_size_bytes, there.path
        )  # fmt: skip
        assert one.engine.status()["feed"] == ("live" if extensions else "polling")


def test_a_save_is_one_version_and_an_unchanged_one_is_none(one: Mounted, remote: Remote) -> None:
    first = one.write("/a/b.md", "one\n")
    assert remote.versions() == [("created", "/a/b.md", "one\n")]
    second = one.write("/a/b.md", "two\n")
    assert second.memory_id == first.memory_id
    assert one.write("/a/b.md", "two\n") == second
    assert [text for *_, text in remote.versions()] == ["one\n", "two\n"]
    assert one.entry("/a/b.md") == second


def test_a_removed_file_is_a_deleted_memory(one: Mounted, remote: Remote) -> None:
    one.engine.remove(one.write("/a.md", "text"))
    assert one.engine.view() == {}
    assert remote.memories() == {}
    one.engine.remove(one.write("/a.md", "again"))
    assert [operation for operation, *_ in remote.versions()] == ["created", "deleted"] * 2


def test_a_renamed_file_keeps_its_id(one: Mounted, remote: Remote) -> None:
    before = one.write("/a.md", "text")
    after = one.engine.rename(before, "/b/c.md")
    assert after.memory_id == before.memory_id
    assert list(one.engine.view()) == ["/b/c.md"]
    assert remote.memories()["/b/c.md"].id == before.memory_id
    assert len(remote.versions()) == 2


def test_a_replaced_file_keeps_its_id_and_gets_the_content(one: Mounted, remote: Remote) -> None:
    source, target = one.write("/new.md", "new"), one.write("/kept.md", "old")
    after = one.engine.rename(source, "/kept.md", onto=target)
    assert after.memory_id == target.memory_id
    assert one.texts() == remote.texts() == {"/kept.md": "new"}
    assert remote.versions()[-2:] == [("modified", "/kept.md", "new"), ("deleted", "/new.md", None)]


def test_a_renamed_directory_keeps_every_id(one: Mounted, remote: Remote) -> None:
    ids = {f"/old/{number}.md": one.write(f"/old/{number}.md", f"{number}").memory_id for number in range(5)}
    one.write("/other.md", "stays")
    one.engine.rename_tree("/old/", "/new/deep/")
    expected = {path.replace("/old/", "/new/deep/"): memory_id for path, memory_id in ids.items()}
    assert {path: entry.memory_id for path, entry in one.engine.view().items() if path != "/other.md"} == expected
    assert {path: item.id for path, item in remote.memories().items() if path != "/other.md"} == expected
    assert len(remote.versions()) == 11


def test_what_others_do_is_shown_and_told(one: Mounted, remote: Remote) -> None:
    memory_id = remote.create("/a.md", "one\n")
    entry = one.wait_for("/a.md", "one\n")
    assert entry is not None
    assert entry.memory_id == memory_id
    remote.update("/a.md", "two\n")
    one.wait_for("/a.md", "two\n")
    remote.update("/a.md", new_path="/b.md")
    one.wait_for("/b.md", "two\n")
    assert one.engine.get("/a.md") is None
    remote.delete("/b.md")
    one.wait_for("/b.md", None)
    until(lambda: len(one.changes) == 4, "four changes")
    paths = [(change.path, change.old_path, change.entry is None) for change in one.changes]
    assert paths == [
        ("/a.md", None, False),
        ("/a.md", None, False),
        ("/b.md", "/a.md", False),
        ("/b.md", None, True),
    ]


def test_what_it_did_itself_is_not_told(one: Mounted, remote: Remote) -> None:
    for number in range(20):
        one.write(f"/{number % 3}.md", f"{number}\n")
    one.engine.rename(one.entry("/0.md"), "/zero.md")
    one.engine.rename(one.entry("/1.md"), "/zero.md", onto=one.entry("/zero.md"))
    one.engine.remove(one.entry("/2.md"))
    one.write("/d/1.md", "in d")
    one.engine.rename_tree("/d/", "/e/")
    remote.create("/last.md", "from another")
    one.wait_for("/last.md", "from another")
    assert [change.path for change in one.changes] == ["/last.md"]


def test_many_writers_at_once(one: Mounted, remote: Remote) -> None:
    def write(writer: int) -> None:
        for number in range(25):
            one.write(f"/{writer}/{number}.md", f"{writer} {number}")
            one.write(f"/{writer}/{number}.md", f"{writer} {number} again")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    expected = {f"/{writer}/{number}.md": f"{writer} {number} again" for writer in range(8) for number in range(25)}
    assert one.engine.flush(30.0) == []
    assert one.texts() == remote.texts() == expected
    assert len(remote.versions()) == 400
    assert one.changes == []


def test_appends_of_two_mounts_all_stay(remote: Remote, tmp_path: Path, extensions: bool) -> None:
    server = remote.server
    remote.create("/log.md", "start\n")
    with (
        mounted(server.base_url, server.api_key, remote.store_id, tmp_path, extensions=extensions) as one,
        mounted(server.base_url, server.api_key, remote.store_id, tmp_path, extensions=extensions, name="two") as two,
    ):

        def append(it: Mounted, writer: str) -> None:
            for number in range(20):
                entry = it.entry("/log.md")
                data = it.engine.fetch(entry)
                it.engine.save("/log.md", data + f"{writer} {number}\n".encode(), entry)

        threads = [threading.Thread(target=append, args=args) for args in ((one, "one"), (two, "two"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert one.engine.flush(30.0) == two.engine.flush(30.0) == []
        text = remote.texts()["/log.md"]
        assert sorted(text.splitlines()[1:]) == sorted(f"{w} {n}" for w in ("one", "two") for n in range(20))
        for it in (one, two):
            it.wait_for("/log.md", text)
    assert len(remote.versions()) == 41


def test_a_new_mount_reads_without_the_network_what_it_had_before(remote: Remote, tmp_path: Path) -> None:
    server = remote.server
    remote.create("/a.md", "text")
    with mounted(server.base_url, server.api_key, remote.store_id, tmp_path) as one:
        assert one.text("/a.md") == "text"
    with mounted(server.base_url, server.api_key, remote.store_id, tmp_path) as one:
        assert one.engine.at_hand(one.entry("/a.md")) == b"text"


def _is_at_hand(one: Mounted, entry: Entry) -> bool:
    return one.engine.at_hand(entry) is not None


def test_many_contents_are_read_in_one_request(remote: Remote, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: remote.create(f"/{number}.md", f"text {number}"), range(60)))
    server = remote.server
    with mounted(server.base_url, server.api_key, remote.store_id, tmp_path) as one:
        for entry in one.engine.view().values():
            until(partial(_is_at_hand, one, entry), "the content is at hand")


def test_a_store_that_is_not_there_can_not_be_mounted(remote: Remote, tmp_path: Path, extensions: bool) -> None:
    server = remote.server
    for store_id, token, reason in (
        ("memstore_01none", server.api_key, "no store"),
        (remote.store_id, "not-a-token", "token"),
    ):
        with (
            pytest.raises(MountError, match=reason),
            mounted(server.base_url, token, store_id, tmp_path, extensions=extensions),
        ):
            pass


def test_a_mount_without_server_and_without_memory_of_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MountError, match="does not answer"), mounted("http://127.0.0.1:1", "x", "memstore_1", tmp_path):
        pass


@pytest.mark.parametrize(
    ("path", "data", "number"),
    [
        ("/big.md", b"x" * 102_401, errno.EFBIG),
        ("/bytes.md", b"\xff\xfe", errno.EILSEQ),
        ("/" + "n" * 256, b"", errno.ENAMETOOLONG),
        ("/d" * 600, b"", errno.ENAMETOOLONG),
        ("/\udcff.md", b"", errno.EILSEQ),
        ("/e\u0301.md", b"", errno.EINVAL),
        ("/a\tb", b"", errno.EINVAL),
        ("/d" * 21, b"", errno.EINVAL),
        ("/taken.md/below.md", b"", errno.ENOTDIR),
        ("/dir", b"", errno.EISDIR),
    ],
    ids=[
        "size", "bytes", "name", "path", "name-bytes", "not-NFC", "control", "segments", "below-a-file", "directory",
    ],
)  # fmt: skip
def test_what_the_store_can_not_hold_is_refused(
    one: Mounted, remote: Remote, path: str, data: bytes, number: int
) -> None:
    one.write("/taken.md", "a file")
    one.write("/dir/file.md", "below")
    before = remote.texts()
    with pytest.raises(Refused) as refused:
        one.engine.save(path, data, None)
    assert refused.value.errno == number
    assert one.texts() == remote.texts() == before
    assert one.changes == []


def test_a_rename_onto_something_unseen_is_refused(one: Mounted, remote: Remote) -> None:
    entry = one.write("/a.md", "ours")
    one.write("/b.md", "theirs")
    with pytest.raises(Refused) as refused:
        one.engine.rename(entry, "/b.md")
    assert refused.value.errno == errno.EEXIST
    one.write("/d/1.md", "1")
    one.write("/e/1.md", "2")
    before = remote.texts()
    with pytest.raises(Refused) as refused:
        one.engine.rename_tree("/d/", "/e/")
    assert refused.value.errno == errno.ENOTEMPTY
    assert one.texts() == remote.texts() == before


def test_a_read_only_attachment_is_never_written(remote: Remote, tmp_path: Path) -> None:
    remote.create("/a/b.md", "text")
    server = remote.server
    with mounted(server.base_url, server.api_key, remote.store_id, tmp_path, read_only=True) as one:
        entry = one.entry("/a/b.md")
        for call in (
            lambda: one.engine.save("/a/b.md", b"x", entry),
            lambda: one.engine.remove(entry),
            lambda: one.engine.rename(entry, "/c.md"),
            lambda: one.engine.rename_tree("/a/", "/c/"),
        ):
            with pytest.raises(Refused) as refused:
                call()
            assert refused.value.errno == errno.EROFS
    assert len(remote.versions()) == 1


def test_an_archived_store_takes_deletes_only(one: Mounted, remote: Remote, client: anthropic.Anthropic) -> None:
    entry = one.write("/a.md", "text")
    client.beta.memory_stores.archive(remote.store_id)
    for path in ("/a.md", "/b.md"):
        with pytest.raises(Refused) as refused:
            one.write(path, "more")
        assert refused.value.errno == errno.EROFS
    assert one.engine.status()["archived"]
    one.engine.remove(entry)
    assert remote.memories() == {}


def test_a_deleted_store_is_stale(one: Mounted, remote: Remote, client: anthropic.Anthropic) -> None:
    entry = one.write("/a.md", "text")
    client.beta.memory_stores.delete(remote.store_id)
    for call in (partial(one.write, "/b.md", "more"), partial(one.engine.save, "/a.md", b"more", entry)):
        with pytest.raises(Refused) as refused:
            call()
        assert refused.value.errno == errno.ESTALE


def test_an_edit_by_somebody_else_beats_a_delete(one: Mounted, remote: Remote) -> None:
    old = one.write("/a.md", "ours")
    remote.update("/a.md", "theirs")
    one.engine.remove(old)
    one.wait_for("/a.md", "theirs")
    assert remote.texts() == {"/a.md": "theirs"}


def test_an_edit_of_ours_beats_a_delete_by_somebody_else(one: Mounted, remote: Remote) -> None:
    old = one.write("/a.md", "ours\n")
    remote.delete("/a.md")
    one.wait_for("/a.md", None)
    one.engine.save("/a.md", b"ours\nedited\n", old)
    assert one.texts() == remote.texts() == {"/a.md": "ours\nedited\n"}


def test_an_edit_follows_a_memory_that_somebody_renamed(one: Mounted, remote: Remote) -> None:
    old = one.write("/a.md", "ours\n")
    remote.update("/a.md", new_path="/b.md")
    one.wait_for("/b.md", "ours\n")
    entry = one.engine.save("/a.md", b"edited\n", old)
    assert (entry.path, entry.memory_id) == ("/b.md", old.memory_id)
    assert one.texts() == remote.texts() == {"/b.md": "edited\n"}


def test_an_entry_is_read_as_it_was_also_when_it_has_changed(one: Mounted, remote: Remote) -> None:
    remote.create("/a.md", "old")
    until(lambda: one.engine.get("/a.md") is not None, "it is there")
    old = one.entry("/a.md")
    remote.update("/a.md", "new")
    until(lambda: one.entry("/a.md").sha256 != old.sha256, "it has changed")
    assert one.engine.at_hand(old) is None
    assert one.engine.fetch(old) == b"old"
    assert one.text("/a.md") == "new"


class Shortened(Watch):
    """A stream that begins by saying that it can't tell everything."""

    def __init__(self, stream: Watch) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[Message]:
        yield Heartbeat()
        yield Truncated()
        yield from self._stream

    def close(self) -> None:
        self._stream.close()


def test_a_feed_that_can_not_tell_everything_is_followed_by_a_snapshot(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = StoreApi.watch

    def truncated(api: StoreApi, after: int) -> Watch:
        """What a server answers whose versions after `after` have expired: nothing of them."""
        remote.create("/untold.md", "text")
        monkeypatch.undo()
        return Shortened(watch(api, after + 1))

    monkeypatch.setattr(StoreApi, "watch", truncated)
    server = remote.server
    with mounted(server.base_url, server.api_key, remote.store_id, tmp_path) as one:
        one.wait_for("/untold.md", "text")
        remote.create("/told.md", "text")
        one.wait_for("/told.md", "text")


def test_a_change_can_call_the_engine_and_slow_listeners_hold_nobody_up(one: Mounted, remote: Remote) -> None:
    release, entered = threading.Event(), threading.Event()

    def listen(changes: list[Change]) -> None:
        entered.set()
        one.engine.view()
        assert release.wait(60)
        one.changes += changes

    one.engine.on_change = listen
    remote.create("/a.md", "theirs")
    assert entered.wait(60)
    for number in range(20):
        one.write(f"/mine/{number}.md", "while the listener is busy")
    release.set()
    remote.create("/b.md", "theirs too")
    until(lambda: [change.path for change in one.changes] == ["/a.md", "/b.md"], "both changes are told in order")
