"""A server that a store is pulled from is a stranger: whatever it answers ends, in bounds, in one sentence."""

import asyncio
import contextlib
import gzip
import json
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.contract.actors import API_KEY, Actor, Caller
from app.contract.errors import InvalidRequest, MemstoreError, Unavailable
from app.keys.service import DEFAULT_WORKSPACE, Keys
from app.storage.rows import migrations
from app.storage.storage import Storage
from app.storage.upkeep.fsck import Fsck
from app.stores.quota import Limits
from app.transfer import remote as remotes
from app.transfer.archives.spool import Spool
from app.transfer.importing import Imports
from app.transfer.pulling import Pull, Source, finish
from app.transfer.remote import Remote
from tests.storage.outside import digest
from tests.storage.parts import options

AT = "2026-01-02T03:04:05Z"
STORE = {"id": "memstore_far", "type": "memory_store", "name": "Far", "description": "d", "metadata": {"a": "b"}}
AUTHOR = {"type": "api_actor", "api_key_id": "apikey_x"}


def version(number: int, **changes: Any) -> dict[str, Any]:
    text = f"text {number}"
    made = {
        "id": f"memver_{number}", "memory_id": f"mem_{number}", "operation": "created", "path": f"/{number}.md",
        "content": text, "content_sha256": digest(text), "content_size_bytes": len(text), "created_at": AT,
        "created_by": AUTHOR, "redacted_at": None, "redacted_by": None,
    }  # fmt: skip
    return made | changes


def head(number: int, **changes: Any) -> dict[str, Any]:
    text = f"text {number}"
    made = {
        "id": f"mem_{number}", "type": "memory", "path": f"/{number}.md", "memory_version_id": f"memver_{number}",
        "content": text, "content_sha256": digest(text), "content_size_bytes": len(text), "created_at": AT,
        "updated_at": AT,
    }  # fmt: skip
    return made | changes


def listed(*items: Any, next_page: Any = None) -> dict[str, Any]:
    return {"data": list(items), "next_page": next_page}


Answers = dict[str, Any]
"""The JSON of the three answers that a pull of a small store takes: `store`, `memory_versions`, `memories`."""


def whole() -> Answers:
    return {
        "store": dict(STORE),
        "memory_versions": listed(version(2), version(1)),
        "memories": listed(head(1), head(2)),
    }


def answering(answers: Callable[[str], bytes], **options: Any) -> Remote:
    """A remote whose server's answers are 200 with these bytes, for the last part of the path."""
    remote = Remote("http://far.example", "key", "memstore_far", sleep=lambda seconds: None, **options)

    def answer(url: str) -> tuple[int, dict[str, str], bytes]:
        last = url.partition("?")[0].rpartition("/")[2]
        return 200, {}, answers("store" if last == "memstore_far" else last)

    remote._answer = answer  # type: ignore[method-assign, assignment]
    return remote


def pulled(remote: Remote, directory: Path) -> Pull:
    pull = Pull(remote, Source("http://far.example", "memstore_far"), directory)
    with contextlib.closing(pull):
        pull.read(lambda number: None)
    return pull


def planned(answers: Answers, directory: Path) -> Any:
    with Spool() as spool:
        return pulled(answering(lambda what: json.dumps(answers[what]).encode()), directory).plan(spool, "")


ODD_VERSIONS: dict[str, dict[str, Any]] = {
    "no memory_id": {"memory_id": ...},
    "an object as ID": {"id": {"a": 1}},
    "a number as ID": {"id": 7},
    "an empty ID": {"id": ""},
    "an endless ID": {"id": "x" * 10_000},
    "another operation": {"operation": "copied"},
    "a path outside": {"path": "/../../escaped"},
    "a relative path": {"path": "a.md"},
    "a path with an escape": {"path": "/\x1b[31m.md"},
    "a number as path": {"path": 7},
    "another content": {"content": "forged"},
    "another digest": {"content_sha256": "0" * 64},
    "a digest that is none": {"content_sha256": "xyz"},
    "another size": {"content_size_bytes": 1},
    "a huge size": {"content_size_bytes": 10**30},
    "a content too large": {"content": "x" * 102_401},
    "a content of bytes": {"content": ["a"]},
    "no content": {"content": None},
    "a lone surrogate": {"content": "\ud800"},
    "a time that is none": {"created_at": "yesterday"},
    "a time before all times": {"created_at": "0001-01-01T00:00:00+23:59"},
    "a time to come": {"created_at": "9999-12-31T23:59:59Z"},
    "a number as time": {"created_at": 1},
    "an unknown author": {"created_by": {"type": "god"}},
    "an author that is a list": {"created_by": [1]},
    "an endless author": {"created_by": {"type": "user_actor", "user_id": "x" * 100_000}},
    "a redacted version with content": {"redacted_at": AT},
}


@pytest.mark.parametrize("name", ODD_VERSIONS)
def test_a_version_that_is_none_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    odd = {key: value for key, value in version(1, **ODD_VERSIONS[name]).items() if value is not ...}
    answers = whole() | {"memory_versions": listed(version(2), odd)}
    with pytest.raises((Unavailable, InvalidRequest)) as refused:
        planned(answers, tmp_path / "work")
    assert len(refused.value.message) < 700
    assert "\n" not in refused.value.message


NOTHING = {"content": None, "content_sha256": None, "content_size_bytes": None}
ODD_ANSWERS: dict[str, Answers] = {
    "a store without name": {"store": {"id": "memstore_far"}},
    "a store with a number as name": {"store": STORE | {"name": 7}},
    "a store with an empty name": {"store": STORE | {"name": ""}},
    "metadata of numbers": {"store": STORE | {"metadata": {"a": 1}}},
    "a list instead of a store": {"store": [STORE]},
    "no data": {"memory_versions": {"next_page": None}},
    "an object as data": {"memory_versions": {"data": {"a": 1}}},
    "a number as cursor": {"memory_versions": listed(version(1), next_page=7)},
    "an endless cursor": {"memory_versions": listed(version(1), next_page="x" * 100_000)},
    "a cursor that repeats": {"memory_versions": listed(version(1), next_page="again")},
    "a memory without its version": {"memories": listed(head(3))},
    "a memory twice": {"memories": listed(head(1), head(1), head(2))},
    "a memory of a version without content": {
        "memory_versions": listed(version(1, operation="deleted", **NOTHING)),
        "memories": listed(head(1)),
    },
    "a memory with an unlawful path": {"memories": listed(head(1, path="/.."), head(2))},
}  # fmt: skip


@pytest.mark.parametrize("name", ODD_ANSWERS)
def test_an_answer_that_is_none_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises((Unavailable, InvalidRequest)) as refused:
        planned(whole() | ODD_ANSWERS[name], tmp_path / "work")
    assert len(refused.value.message) < 700


def test_memories_that_can_not_be_beside_each_other_are_listed(tmp_path: Path) -> None:
    answers = whole() | {"memories": listed(head(1, path="/a"), head(2, path="/a/b"))}
    assert [refusal.path for refusal in planned(answers, tmp_path / "work").refused] == ["/a"]


def test_a_listing_that_brings_nothing_new_for_ever_ends() -> None:
    numbers = count()

    def answer(what: str) -> bytes:
        return json.dumps(listed(version(1), next_page=f"page {next(numbers)}")).encode()

    with pytest.raises(Unavailable, match="does not end: it repeats itself"):
        list(answering(answer).version_pages(None))
    assert next(numbers) < 200


def test_a_listing_that_brings_news_for_ever_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remotes, "LISTING_MAX_ITEMS", 50)
    numbers = count()

    def answer(what: str) -> bytes:
        number = next(numbers)
        return json.dumps(listed(version(number), next_page=f"page {number}")).encode()

    with pytest.raises(Unavailable, match="is longer than 50"):
        list(answering(answer).version_pages(None))


@pytest.mark.parametrize(
    "body", [b"", b"not json", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000, b'{"name":' + b"9" * 100_000 + b"}"]
)
def test_a_body_that_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises(Unavailable, match="memory store can't be understood"):
        answering(lambda what: body).store()


# Over the network


class Stub:
    """A server that answers every request by `respond(socket)`."""

    def __init__(self, respond: Callable[[socket.socket], None]) -> None:
        self._respond = respond
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.requests = 0
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self._listening.accept()
                Thread(target=self._answer, args=(accepted,), daemon=True).start()

    def _answer(self, accepted: socket.socket) -> None:
        with contextlib.suppress(OSError), accepted:
            while accepted.recv(65_536):
                self.requests += 1
                self._respond(accepted)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


@contextlib.contextmanager
def stub(respond: Callable[[socket.socket], None], **options: Any) -> Iterator[Remote]:
    server = Stub(respond)
    remote = Remote(server.url, "key", "memstore_far", sleep=lambda seconds: None, **options)
    try:
        yield remote
    finally:
        remote.close()
        server.close()


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "content-type: application/json", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def test_a_packed_answer_is_read() -> None:
    packed = gzip.compress(json.dumps(STORE).encode())
    with stub(lambda caller: caller.sendall(answer(packed, "content-encoding: gzip"))) as remote:
        assert remote.store().name == "Far"
        assert remote.store().name == "Far", "the connection can be used again"


def test_an_answer_that_unpacks_to_hundreds_of_megabytes_is_not_unpacked() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(1024 * 1024)
    packed = b"".join([packer.compress(block) for _ in range(700)]) + packer.flush()
    with (
        stub(lambda caller: caller.sendall(answer(packed, "content-encoding: gzip"))) as remote,
        pytest.raises(Unavailable, match="is larger than 33,554,432 bytes"),
    ):
        remote.store()


@pytest.mark.parametrize("encoding", ["gzip, gzip", "br", "zstd", "deflate", "x" * 1000])
def test_an_answer_packed_as_was_not_asked_for_is_refused(encoding: str) -> None:
    with (
        stub(lambda caller: caller.sendall(answer(b"x", f"content-encoding: {encoding}"))) as remote,
        pytest.raises(Unavailable, match="only gzip was asked for"),
    ):
        remote.store()


def endless(caller: socket.socket) -> None:
    caller.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        caller.sendall(b"10000\r\n" + b" " * 65_536 + b"\r\n")


def test_a_body_without_end_is_left() -> None:
    with stub(endless) as remote, pytest.raises(Unavailable, match="is larger than"):
        remote.store()


def endless_refusal(caller: socket.socket) -> None:
    caller.sendall(b"HTTP/1.1 403 No\r\n\r\n")
    while True:
        caller.sendall(b"x" * 65_536)


def test_a_refusal_without_end_is_cut() -> None:
    with stub(endless_refusal) as remote, pytest.raises(MemstoreError, match=r"answers 403: x{200}…"):
        remote.store()


def dribbling(start: bytes) -> Callable[[socket.socket], None]:
    def respond(caller: socket.socket) -> None:
        caller.sendall(start)
        while True:
            caller.sendall(b"a")
            time.sleep(0.01)

    return respond


@pytest.mark.parametrize(
    "start", [b"HTTP/1.1 200 OK\r\nx-a: ", b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n", b"HTTP"]
)
def test_an_answer_that_dribbles_is_given_up(start: bytes) -> None:
    with (
        stub(dribbling(start), answer_seconds=0.3) as remote,
        pytest.raises(Unavailable, match="after 8 attempts: it does not answer"),
    ):
        remote.store()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00" * 100,
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"f" * 5000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 10_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
    ],
)
def test_what_is_no_http_is_told(raw: bytes) -> None:
    def respond(caller: socket.socket) -> None:
        caller.sendall(raw)
        caller.close()

    with stub(respond) as remote, pytest.raises(Unavailable) as refused:
        remote.store()
    assert len(refused.value.message) < 400


def test_a_redirect_is_not_followed() -> None:
    moved = answer(b"", "location: http://127.0.0.1:1/", status="301 Moved")
    with stub(lambda caller: caller.sendall(moved)) as remote, pytest.raises(InvalidRequest, match="answers 301"):
        remote.store()


@pytest.mark.parametrize("url", ["http://[", "http://a:99999", "http://a:b", "ftp://a", "//a", "http://", "http://a b",
                                 "http://a/?x", "http://" + "a" * 300, "http://a\n"])  # fmt: skip
def test_what_is_no_url_is_told(url: str) -> None:
    with pytest.raises(InvalidRequest, match="is no http or https URL"):
        Remote(url, "key", "memstore_far")


def test_a_key_that_is_none_is_refused_without_being_shown() -> None:
    with pytest.raises(InvalidRequest) as refused:
        Remote("http://a", "secret\n", "memstore_far")
    assert "secret" not in refused.value.message


# Whatever comes


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=20)
    | st.sampled_from(["", "/", "/a", "/1.md", "/2.md/x", "/\x1b", AT, "created", "mem_1", "memver_1", "0" * 64]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*path, index))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    first, *rest = path
    if isinstance(value, dict):
        return {**value, first: replaced(value[first], tuple(rest), new)}
    return [replaced(item, tuple(rest), new) if index == first else item for index, item in enumerate(value)]


@st.composite
def odd_answers(draw: Any) -> Answers:
    answers: Any = whole()
    for _ in range(draw(st.integers(1, 3))):
        answers = replaced(answers, draw(st.sampled_from([each for each in places(answers) if each])), draw(JSON))
    return answers  # type: ignore[no-any-return]


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[tuple[asyncio.Runner, Storage, Caller]]:
    data = tmp_path / "data"
    data.mkdir()
    chosen = options({"MEMSTORE_DATA_DIR": str(data)})
    migrations.upgrade(chosen.database_url)
    with asyncio.Runner() as runner:
        storage = Storage(chosen)
        runner.run(storage.open(in_background=False))
        key = runner.run(Keys(storage.database).create(DEFAULT_WORKSPACE))
        yield runner, storage, Caller(key.workspace_id, Actor(API_KEY, key.id))
        assert runner.run(Fsck(storage.database, storage.blobs).run(repair=False)) == []
        runner.run(storage.close())


def test_whatever_a_server_answers_becomes_a_store_or_a_sentence(
    storage: tuple[asyncio.Runner, Storage, Caller], tmp_path: Path
) -> None:
    runner, opened, caller = storage
    numbers, sentences = count(), list[str]()
    imports = Imports(opened, Limits(100, 10_000_000), max_stores=0)

    @given(odd_answers())
    @settings(max_examples=200, suppress_health_check=list(HealthCheck))
    def pull(answers: Answers) -> None:
        try:
            job = pulled(answering(lambda what: json.dumps(answers[what]).encode()), tmp_path / f"work {next(numbers)}")
            runner.run(finish(job, caller, imports, opened.database, ""))
        except MemstoreError as error:
            sentences.append(error.message)

    pull()
    assert all(len(sentence) < 700 for sentence in sentences)
