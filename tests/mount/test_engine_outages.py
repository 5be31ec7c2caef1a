"""What `close` accepted is saved in the end, once and in order, whatever happens to server, network and mount."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import anthropic
import pytest
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from app.mount.sync.errors import MountError, Offline, Refused
from tests.faults.proxy import Proxy
from tests.mount.engines import Mounted, Remote, mounted
from tests.support.backends import Backend
from tests.support.servers import Server, serve
from tests.support.waiting import WAIT_SECONDS, until


@pytest.fixture
def remote(server: Server, client: anthropic.Anthropic, store: Store) -> Remote:
    return Remote(server, client, store.id)


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy.running(("127.0.0.1", urlsplit(server.base_url).port or 0)) as proxy:
        yield proxy


@pytest.fixture(params=[True, False], ids=["extensions", "vendor-api"])
def extensions(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@contextmanager
def behind(proxy: Proxy, remote: Remote, directory: Path, **options: object) -> Iterator[Mounted]:
    url = f"http://127.0.0.1:{proxy.port}"
    with mounted(url, remote.server.api_key, remote.store_id, directory, **options) as one:  # type: ignore[arg-type]
        yield one


@pytest.mark.parametrize("number", [3, 40])
def test_what_nobody_opened_yet_can_be_read_while_the_server_is_away(
    proxy: Proxy, remote: Remote, tmp_path: Path, extensions: bool, number: int
) -> None:
    texts = {f"/{count:02}.md": f"text {count}\n" for count in range(number)}
    for path, text in texts.items():
        remote.create(path, text)
    with behind(proxy, remote, tmp_path, extensions=extensions) as one:
        entries = one.engine.view().values()
        until(lambda: all(one.engine.at_hand(entry) is not None for entry in entries), "everything is at hand")
        proxy.refuse()
        assert one.texts() == texts
        proxy.forward()


def test_what_was_written_while_the_server_was_away_is_saved_in_order(
    proxy: Proxy, remote: Remote, tmp_path: Path, extensions: bool
) -> None:
    with behind(proxy, remote, tmp_path, extensions=extensions) as one:
        one.write("/kept.md", "0\n", durable=True)
        one.write("/moved.md", "moves\n", durable=True)
        one.write("/gone.md", "goes\n", durable=True)
        proxy.refuse()
        for number in range(1, 6):
            one.write("/kept.md", f"{number}\n")
        one.write("/new.md", "made and\n")
        one.engine.rename(one.entry("/new.md"), "/d/renamed.md")
        one.write("/d/renamed.md", "made and renamed\n")
        one.engine.rename(one.entry("/moved.md"), "/d/moved.md")
        one.engine.rename_tree("/d/", "/e/")
        one.engine.remove(one.entry("/gone.md"))
        expected = {"/kept.md": "5\n", "/e/renamed.md": "made and renamed\n", "/e/moved.md": "moves\n"}
        assert one.texts() == expected
        assert one.engine.flush(0.0) != []
        until(lambda: not one.engine.status()["connected"], "the status says that the server is away")
        assert set(one.engine.status()["pending"]) >= {"/kept.md", "/gone.md"}
        proxy.forward()
        assert one.engine.flush(WAIT_SECONDS) == []
        assert one.texts() == remote.texts() == expected
        assert [text for _, path, text in remote.versions() if path == "/kept.md"] == [f"{n}\n" for n in range(6)]
        until(lambda: one.engine.status()["connected"], "the status says that the server is back")
        assert one.changes == []
        assert os.stat(tmp_path / "one" / "journal").st_size == 0


def test_what_others_did_during_an_outage_is_shown_after_it(
    proxy: Proxy, remote: Remote, tmp_path: Path, extensions: bool
) -> None:
    remote.create("/changed.md", "old")
    remote.create("/deleted.md", "old")
    with behind(proxy, remote, tmp_path, extensions=extensions) as one:
        proxy.refuse()
        until(lambda: one.engine.status()["feed"] == "lost", "the feed is lost")
        remote.update("/changed.md", "new")
        remote.delete("/deleted.md")
        remote.create("/created.md", "new")
        proxy.forward()
        one.wait_for("/created.md", "new")
        until(lambda: one.texts() == {"/changed.md": "new", "/created.md": "new"}, "everything is shown")
        until(lambda: len(one.changes) == 3, "everything is told")
        back = "live" if extensions else "polling"
        until(lambda: one.modes == [back, "lost", back], lambda: f"the feed is told of: {one.modes}")


def test_a_server_that_hangs_holds_close_up_for_a_moment_only(proxy: Proxy, remote: Remote, tmp_path: Path) -> None:
    with behind(proxy, remote, tmp_path) as one:
        entry = one.write("/a.md", "before", durable=True)
        proxy.hang()
        assert one.write("/a.md", "during").version_id == entry.version_id
        assert one.text("/a.md") == "during"
        assert one.engine.status()["pending"] == ["/a.md"]
        proxy.forward()
        assert one.engine.flush(WAIT_SECONDS) == []
        assert [text for *_, text in remote.versions()] == ["before", "during"]


def test_durable_waits_for_the_server_and_says_when_it_is_away(proxy: Proxy, remote: Remote, tmp_path: Path) -> None:
    with behind(proxy, remote, tmp_path) as one:
        proxy.slow(0.2)
        one.write("/a.md", "slow", durable=True)
        assert remote.texts() == {"/a.md": "slow"}
        proxy.refuse()
        with pytest.raises(Offline):
            one.write("/a.md", "away", durable=True)
        assert one.text("/a.md") == "away"
        proxy.forward()
        assert one.engine.flush(WAIT_SECONDS) == []
        assert remote.texts() == {"/a.md": "away"}


def test_a_lost_answer_does_not_make_a_second_version(proxy: Proxy, remote: Remote, tmp_path: Path) -> None:
    """The server does the work, and the answer is cut off; then somebody else changes the text."""
    with behind(proxy, remote, tmp_path) as one:
        one.write("/log.md", "start\n", durable=True)
        proxy.slow(0.5)
        one.write("/log.md", "start\nours\n")
        until(lambda: remote.texts()["/log.md"] == "start\nours\n", "the server has it")
        proxy.refuse()
        remote.update("/log.md", "start\nours, edited by another\n")
        proxy.forward()
        assert one.engine.flush(WAIT_SECONDS) == []
        one.wait_for("/log.md", "start\nours, edited by another\n")
    assert [text for *_, text in remote.versions()] == ["start\n", "start\nours\n", "start\nours, edited by another\n"]
    assert remote.texts() == {"/log.md": "start\nours, edited by another\n"}


def test_a_lost_answer_to_a_merged_text_does_not_merge_it_twice(proxy: Proxy, remote: Remote, tmp_path: Path) -> None:
    """The first delivery finds a change and merges; its answer is lost; then there is another change."""
    with behind(proxy, remote, tmp_path) as one:
        one.write("/log.md", "start\n", durable=True)
        proxy.refuse()
        one.write("/log.md", "start\nours\n")
        remote.update("/log.md", "start\ntheirs\n")
        proxy.forward()
        proxy.slow(0.3)
        until(lambda: remote.texts()["/log.md"] == "start\ntheirs\nours\n", "the server has the merged text")
        proxy.refuse()
        remote.update("/log.md", "start\ntheirs\nours\nlater\n")
        proxy.forward()
        assert one.engine.flush(WAIT_SECONDS) == []
        one.wait_for("/log.md", "start\ntheirs\nours\nlater\n")
    assert len(remote.versions()) == 4


def test_connections_cut_again_and_again_lose_and_repeat_nothing(
    proxy: Proxy, remote: Remote, tmp_path: Path, extensions: bool
) -> None:
    done = threading.Event()

    def cut() -> None:
        while not done.wait(0.02):
            proxy.cut()

    cutting = threading.Thread(target=cut)
    with behind(proxy, remote, tmp_path, extensions=extensions) as one:
        one.write("/log.md", "", durable=True)
        cutting.start()
        try:
            for number in range(60):
                entry = one.entry("/log.md")
                one.engine.save("/log.md", one.engine.fetch(entry) + f"{number}\n".encode(), entry)
                one.write(f"/files/{number}.md", f"{number}")
        finally:
            done.set()
            cutting.join()
        assert one.engine.flush(WAIT_SECONDS) == []
        lines = [f"{number}\n" for number in range(60)]
        texts = remote.texts()
        assert texts.pop("/log.md") == "".join(lines)
        assert texts == {f"/files/{number}.md": f"{number}" for number in range(60)}
        logged = [text for _, path, text in remote.versions() if path == "/log.md"]
        assert logged == ["".join(lines[:number]) for number in range(61)]
        assert one.engine.status()["conflicts"] == []


def test_a_mount_starts_without_the_server_from_what_it_knew(proxy: Proxy, remote: Remote, tmp_path: Path) -> None:
    remote.create("/a.md", "known")
    with behind(proxy, remote, tmp_path) as one:
        assert one.text("/a.md") == "known"
    remote.update("/a.md", "changed meanwhile")
    proxy.refuse()
    with behind(proxy, remote, tmp_path) as one:
        assert one.texts() == {"/a.md": "known"}
        one.write("/b.md", "written offline")
        assert not one.engine.status()["connected"]
        proxy.forward()
        one.wait_for("/a.md", "changed meanwhile")
        assert one.engine.flush(WAIT_SECONDS) == []
    assert remote.texts() == {"/a.md": "changed meanwhile", "/b.md": "written offline"}


def test_stop_says_what_is_not_saved_and_the_next_start_saves_it(proxy: Proxy, remote: Remote, tmp_path: Path) -> None:
    with behind(proxy, remote, tmp_path, leaves=["/a.md"]) as one:
        proxy.refuse()
        one.write("/a.md", "offline")
    proxy.forward()
    with behind(proxy, remote, tmp_path) as one:
        assert one.engine.flush(WAIT_SECONDS) == []
        assert one.texts() == {"/a.md": "offline"}
    assert remote.versions() == [("created", "/a.md", "offline")]


def test_a_full_journal_refuses_the_write(proxy: Proxy, remote: Remote, tmp_path: Path) -> None:
    with behind(proxy, remote, tmp_path, journal_max_bytes=10_000) as one:
        proxy.refuse()
        one.write("/a.md", "x" * 6_000)
        with pytest.raises(Refused) as refused:
            one.write("/b.md", "x" * 6_000)
        assert refused.value.errno == errno.ENOSPC
        with pytest.raises(Refused):
            one.write("/a.md", "y" * 6_000)
        assert one.texts() == {"/a.md": "x" * 6_000}
        proxy.forward()
        assert one.engine.flush(WAIT_SECONDS) == []
        one.write("/b.md", "now there is room", durable=True)
        assert remote.texts() == {"/a.md": "x" * 6_000, "/b.md": "now there is room"}
        assert len(remote.versions()) == 2


def test_what_is_refused_after_the_close_is_kept_and_said(
    proxy: Proxy, remote: Remote, tmp_path: Path, client: anthropic.Anthropic
) -> None:
    with behind(proxy, remote, tmp_path, leaves=["/a.md"]) as one:
        one.write("/a.md", "saved", durable=True)
        proxy.refuse()
        one.write("/a.md", "too late")
        client.beta.memory_stores.archive(remote.store_id)
        proxy.forward()
        assert one.engine.flush(WAIT_SECONDS) == ["/a.md"]
        one.wait_for("/a.md", "saved")
        (refused,) = one.engine.status()["refused"]
        assert (refused["path"], refused["errno"]) == ("/a.md", errno.EROFS)
        assert "archived" in refused["reason"]
        assert Path(refused["place"]).read_text() == "too late"
        until(lambda: [change.path for change in one.changes] == ["/a.md"], "the text that counts is told")
        json.dumps(one.engine.status())
    with behind(proxy, remote, tmp_path) as one:
        assert one.engine.status()["refused"] == [refused]
        assert one.engine.flush(WAIT_SECONDS) == [], "a flush tells what this process could not save"
        assert one.texts() == {"/a.md": "saved"}
    assert remote.texts() == {"/a.md": "saved"}


def test_a_token_that_expired_holds_writes_until_there_is_another(proxy: Proxy, remote: Remote, tmp_path: Path) -> None:
    token = {"now": remote.server.api_key}
    with behind(proxy, remote, tmp_path) as one:
        one.api._token = lambda: token["now"]
        token["now"] = "expired"
        with pytest.raises(Refused) as refused:
            one.write("/a.md", "text", durable=True)
        assert refused.value.errno == errno.EACCES
        proxy.refuse()
        one.write("/a.md", "accepted")
        proxy.forward()
        assert one.engine.flush(0.5) == ["/a.md"]
        token["now"] = remote.server.api_key
        assert one.engine.flush(WAIT_SECONDS) == []
    assert remote.texts() == {"/a.md": "accepted"}


WRITER = """
import sys
from pathlib import Path
from app.mount.door.api import StoreApi
from app.mount.sync.content_cache import ContentCache
from app.mount.sync.engine import StoreEngine
url, token, store_id, directory = sys.argv[1:]
engine = StoreEngine(
    StoreApi(url, store_id, lambda: token),
    directory=Path(directory) / "one", content_cache=ContentCache(Path(directory) / "cache"),
    read_only=False, label="s1",
)
engine.start()
log = b""
for number in range(10_000):
    log += f"{number}\\n".encode()
    engine.save("/log.md", log, engine.get("/log.md"))
    engine.save(f"/files/{number}.md", str(number).encode(), None)
    print(number, flush=True)
"""


@pytest.mark.parametrize("away", [False, True], ids=["while-saving", "while-the-server-is-away"])
def test_kill_9_of_the_mount_loses_and_repeats_nothing(
    proxy: Proxy, remote: Remote, tmp_path: Path, away: bool
) -> None:
    command = [sys.executable, "-c", WRITER, f"http://127.0.0.1:{proxy.port}", remote.server.api_key]
    command += [remote.store_id, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(10):
            assert writer.stdout.readline()
        if away:
            proxy.refuse()
        else:
            proxy.slow(0.1)  # so that many are in the journal and under way
        for _ in range(40):
            assert writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        last = max([49, *map(int, writer.stdout.read().split())])
    proxy.forward()
    with behind(proxy, remote, tmp_path) as one:
        assert one.engine.flush(WAIT_SECONDS) == []
        texts = one.texts()
        assert texts == remote.texts()
    log = texts["/log.md"].splitlines()
    assert log == [str(number) for number in range(len(log))]
    assert len(log) in (last + 1, last + 2), "what was not answered may be there or not"
    for number in range(last + 1):
        assert texts[f"/files/{number}.md"] == str(number)
    assert {path for path in texts if "conflict" in path} == set()
    logged = [text for _, path, text in remote.versions() if path == "/log.md"]
    assert [len((text or "").splitlines()) for text in logged] == list(range(1, len(log) + 1))


def test_a_server_that_is_killed_and_comes_back_has_everything(backend: Backend, tmp_path: Path) -> None:
    with serve(backend.environment(tmp_path)) as server, server.client() as client:
        store = client.beta.memory_stores.create(name="kept")
        remote = Remote(server, client, store.id)
        with mounted(server.base_url, server.api_key, store.id, tmp_path) as one:
            for number in range(10):
                one.write(f"/{number}.md", "before")
            server.kill()
            for number in range(10):
                one.write(f"/{number}.md", "while it is down")
            server.start()
            assert one.engine.flush(WAIT_SECONDS) == []
            assert set(remote.texts().values()) == {"while it is down"}
            assert len(remote.versions()) == 20
            remote.create("/another.md", "from another")
            one.wait_for("/another.md", "from another")


def test_the_journal_of_a_living_mount_is_not_opened_twice(remote: Remote, tmp_path: Path) -> None:
    server = remote.server
    with (
        mounted(server.base_url, server.api_key, remote.store_id, tmp_path),
        pytest.raises(MountError, match="another process"),
        mounted(server.base_url, server.api_key, remote.store_id, tmp_path),
    ):
        pass
