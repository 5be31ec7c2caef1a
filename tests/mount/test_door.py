"""What a server says is believed only where the contract allows it."""

import itertools
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from urllib3.connection import HTTPConnection

from app.client import http1, showing
from app.client.failures import ApiError, Away, PathTaken
from app.contract import paths
from app.contract.limits import CONTENT_MAX_BYTES
from app.contract.showing import escaped
from app.mount.daemon.account import Account, Credentials
from app.mount.door import wire
from app.mount.door.api import StoreApi, refusal
from app.mount.mirror import tree as trees
from app.mount.mirror.frontend import MirrorFrontEnd
from app.mount.mirror.tree import Tree
from app.mount.sync.content_cache import ContentCache
from app.mount.sync.engine import StoreEngine
from app.mount.sync.errors import MountError
from tests.mount import hostile
from tests.support.waiting import until

BAD_PATHS = [
    "/../../escaped/x", "/..", "/a/../../x", "/./x", "//x", "/a//b", "/a/", "/", "", "x", "/a\nb", "/a\r\nb",
    "/\x1b[31mred", "/\u202etxt.exe", "/a\0b", "/\u2028", "/\x7f", "/cafe\u0301", "/\ud800",
    "/" + "a" * 2_000, "/a" * 21, None, 7, ["/a"], {"a": 1},
]  # fmt: skip
"""None of them names a memory."""

rubbish = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([10**12, -1, 2**63, 1e400, float("nan"), "1", "", "\r\nx: y", "../x", "\x1b[2J", "x" * 9_000]),
    st.sampled_from(BAD_PATHS),
    st.lists(st.just([]), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.text(max_size=30),
)


def spoilt(good: dict[str, Any]) -> st.SearchStrategy[Any]:
    """The object with some members replaced by rubbish or left out, or rubbish altogether."""
    members = st.dictionaries(st.sampled_from(sorted(good)), rubbish, max_size=3)
    without = st.sets(st.sampled_from(sorted(good)), max_size=1)
    objects = st.builds(lambda new, gone: {k: v for k, v in {**good, **new}.items() if k not in gone}, members, without)
    return st.one_of(objects, rubbish)


def check_entry(entry: Any) -> None:
    assert paths.check(entry.path) == entry.path
    assert 0 <= entry.size <= CONTENT_MAX_BYTES
    assert 0 <= entry.mtime_ns < 2**63
    for identifier in (entry.memory_id, entry.version_id):
        assert identifier.isascii()
        assert identifier.replace("_", "").replace("-", "").isalnum()
    assert len(bytes.fromhex(entry.sha256)) == 32


def attempt(read: Callable[[], Any]) -> Any:
    """What it gives; None where it refuses, in words that a terminal can show."""
    try:
        return read()
    except (Away, OSError, ValueError) as error:
        words = error.message if isinstance(error, Away) else escaped(str(error))
    assert words.isprintable()
    return None


@given(spoilt(hostile.memory(1, "/a.md")))
def test_a_memory_is_one_of_the_contract_or_none(item: Any) -> None:
    if (memory := attempt(lambda: wire.memory(item))) is not None:
        check_entry(memory.entry)
        assert memory.content is None or len(memory.content) == memory.entry.size


@given(spoilt(hostile.change(2, 1, "/a.md")))
def test_a_change_is_one_of_the_contract_or_none(item: Any) -> None:
    if (event := attempt(lambda: wire.event(item))) is not None:
        assert event.odd is None or event.odd.path.isprintable()
        if event.entry is not None:
            check_entry(event.entry)


@given(
    spoilt({"data": [hostile.change(2, 1, "/a.md")], "next_after": 2, "has_more": True, "truncated": False}),
    spoilt({"seq": 1, "count": 2, "archived_at": None}),
    spoilt({"resources": [{"type": "memory_store"}], "next_page": "x", "data": [], "created_by": {"type": []}}),
)
def test_pages_heads_and_sessions_are_ones_of_the_contract_or_none(page: Any, head: Any, other: Any) -> None:
    for read in (
        lambda: wire.events(wire.document(json.dumps(page).encode()), 1, 10),
        lambda: wire.snapshot_head(json.dumps(head).encode()),
        lambda: wire.stores_of(wire.document(json.dumps(other).encode())),
        lambda: wire.next_page(wire.document(json.dumps(other).encode())),
        lambda: wire.items(wire.document(json.dumps(other).encode()), 10),
        lambda: wire.author(wire.document(json.dumps(other).encode())),
        lambda: wire.version(other),
        lambda: wire.name(other),
        lambda: wire.directory(other),
        lambda: wire.secret(other),
    ):
        attempt(read)


@given(
    st.integers(300, 599),
    spoilt(
        {"type": "x", "message": "\x1b[31m", "conflicting_path": "/a", "conflicting_memory_id": "mem_1", "details": []}
    ),
    st.sampled_from([None, "nan", "inf", "-1", "9" * 5_000, "x"]),
)
def test_a_refusal_is_a_sentence_that_a_terminal_can_show(status: int, error: Any, retry_after: str | None) -> None:
    headers = {} if retry_after is None else {"retry-after": retry_after}
    found = refusal(status, headers, json.dumps({"error": error}).encode())
    assert isinstance(found, ApiError)
    assert found.message.isprintable()
    if isinstance(found, PathTaken):
        paths.check(found.conflicting_path)


@given(st.text(), st.integers(0, 30))
def test_the_client_shows_a_foreign_text_as_the_contract_does(text: str, most: int) -> None:
    assert showing.escaped(text, most) == escaped(text, most)


class Wire:
    """A connection on which these bytes come, in pieces."""

    def __init__(self, data: bytes, piece: int) -> None:
        self._data, self._piece = data, piece

    def recv(self, most: int) -> bytes:
        size = min(most, self._piece)
        found, self._data = self._data[:size], self._data[size:]
        return found

    def gettimeout(self) -> float:
        return 1.0


heads = st.sampled_from([
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" * 40, b"HTTP/1.1 2_0\r\n", b"HTTP/1.1 -10\r\n",
    b"HTTP/9\r\n",
])  # fmt: skip
fields = st.sampled_from([
    b"content-length: 10\r\n\r\n", b"content-length: -10\r\n\r\n", b"content-length: 1_0\r\n\r\n", b"\r\n",
    b"content-length: " + b"9" * 5_000 + b"\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n", b"x: y\r\n" * 20_000,
])  # fmt: skip
chunks = st.sampled_from([
    b"5\r\nhello\r\n", b"-5\r\n", b"f" * 70_000, b"ffffffffffff\r\n", b"0\r\n", b"x" * 400, b"x: y\r\n" * 99, b"\r\n",
])  # fmt: skip
bodies = st.lists(st.one_of(chunks, st.binary(max_size=200)), max_size=6)


@settings(max_examples=200)
@given(heads, fields, bodies, st.sampled_from([1_000, 65_536]))
def test_no_bytes_on_a_connection_take_more_memory_than_an_answer_may(
    head: bytes, field: bytes, body: list[bytes], piece: int
) -> None:
    connection = HTTPConnection("localhost")
    connection.sock = Wire(head + field + b"".join(body), piece)
    reader = http1.Reader(connection.sock.recv, 300, 10.0)
    if (found := attempt(lambda: http1.read_head(reader))) is not None:
        read: list[int] = []
        attempt(lambda: read.extend(map(len, http1.pieces(reader, found[0], found[1]))))
        assert sum(read) <= 300
    assert len(reader._rest) <= 2 * 65_536


BODIES = {
    "by its length": b"content-length: 60000\r\n\r\n" + b"x" * 60_000,
    "in chunks": b"transfer-encoding: chunked\r\n\r\n" + b"2\r\nxx\r\n" * 30_000 + b"0\r\n\r\n",
    "to the end": b"\r\n" + b"x" * 60_000,
}


@pytest.mark.parametrize("body", BODIES)
def test_an_answer_that_comes_drop_by_drop_is_given_up(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = HTTPConnection("localhost")
    connection.sock = Wire(b"HTTP/1.1 200 OK\r\n" + BODIES[body], 100)
    seconds = itertools.count()
    monkeypatch.setattr("app.client.http1.time", SimpleNamespace(monotonic=lambda: float(next(seconds))))
    reader = http1.Reader(connection.sock.recv, 100_000, 100.0)
    with pytest.raises(TimeoutError, match="too long"):
        http1.whole(http1.pieces(reader, *http1.read_head(reader)[:2]))


def test_small_pieces_take_no_more_memory_than_large_ones() -> None:
    connection = HTTPConnection("localhost")
    connection.sock = Wire(b"HTTP/1.1 200 OK\r\n" + BODIES["in chunks"], 65_536)
    reader = http1.Reader(connection.sock.recv, 100_000, 100.0)
    tracemalloc.start()
    try:
        data = http1.whole(http1.pieces(reader, *http1.read_head(reader)[:2]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert data == b"x" * 60_000
    assert peak < 600_000  # as objects they took 3,700,000


@pytest.mark.parametrize("has_openat2", [True, False])
def test_nothing_outside_the_root_opens(has_openat2: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "_has_openat2", has_openat2)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "outside").mkdir()
    root = tmp_path / "root"
    tree = Tree(root)
    (root / "d").mkdir()
    (root / "link").symlink_to(tmp_path)
    (root / "d" / "up").symlink_to("..")
    for path in ("/../secret", "/d/../../secret", "/link/secret", "/..", "/d/up/x", "//etc/passwd", "/d/."):
        with pytest.raises(OSError), tree.open(path):  # noqa: PT011 - whichever it is
            pass
    for path in ("/..", "/../outside", "/link", "/link/outside", "/d/up"):
        with pytest.raises(OSError), tree.directory(path):  # noqa: PT011
            pass
    with tree.directory("/d"):
        tree.close()


@pytest.mark.parametrize("mount_path", ["/mnt/memory/..", "/x/..", "/x/.", "a\nb", "/x/\x1b[2J", "/x/A", 7, None])
def test_no_mount_path_leads_out_of_the_root(mount_path: Any) -> None:
    with hostile.hostile() as server:
        store = {"type": "memory_store", "memory_store_id": "memstore_1", "name": "n", "mount_path": mount_path}
        server.memories.append({"id": "sesn_1", "resources": [store]})
        account = Account(Credentials(server.url, api_key="key"))
        with pytest.raises(MountError) as refused:
            account.session_attachments("sesn_1")
        assert str(refused.value).isprintable()
        account.close()


def test_a_hostile_store_makes_no_file_but_those_it_may(tmp_path: Path) -> None:
    memories = [hostile.memory(number, path) for number, path in enumerate(BAD_PATHS) if isinstance(path, str)]
    memories += [hostile.memory(90, "/good.md", "good\n"), hostile.memory(91, "/moves.md")]
    memories += [hostile.memory(92, "/lie.md", content_size_bytes=10**12)]
    home = tmp_path / "home"
    with hostile.hostile(memories) as server:
        engine = StoreEngine(
            StoreApi(server.url, hostile.STORE, lambda: "token"),
            directory=home / "engine",
            content_cache=ContentCache(home / "cache"),
            read_only=False,
            label="s1",
        )
        mirror = MirrorFrontEnd(engine, home / "root", state_dir=home / "state", read_only=False)
        engine.start()
        mirror.start()
        names = engine.status()["unshowable"]
        assert len(names) == len(memories) - 2
        assert all(name.isprintable() for name in names)
        assert r"/\x1b[31mred" in names
        assert "/lie.md" in names
        # One that could be shown gets a name that can't, and the reverse.
        server.tell(hostile.change(2, 91, "/../moved.md"))
        server.tell(hostile.change(3, 0, "/late.md"))
        server.memories[0] = hostile.memory(0, "/late.md")
        until(lambda: (home / "root" / "late.md").exists(), "the memory with a good name is shown")
        until(lambda: not (home / "root" / "moves.md").exists(), "the memory with a bad name is not")
        found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.md"))
        assert found == ["home/root/good.md", "home/root/late.md"]
        assert sorted(path.name for path in (home / "root").iterdir()) == ["good.md", "late.md"]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]
        assert not list(Path("/").glob("escaped*"))
        mirror.stop(5)
        engine.stop(5)
