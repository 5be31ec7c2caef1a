"""The parts of the sync engine by themselves: cache, HTTP, schedule, state."""

import hashlib
import json
import os
import random
import socket
import threading
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.client.exchange import Connections
from app.client.failures import ApiError, Away, TimedOut
from app.contract import paths as contract_paths
from app.mount.door.api import StoreApi
from app.mount.door.entries import Entry
from app.mount.door.wire import Event, Heartbeat, Message, Page
from app.mount.sync import feed
from app.mount.sync.content_cache import ContentCache
from app.mount.sync.heads import Heads
from app.mount.sync.remembered import Remembered
from app.mount.sync.schedule import Schedule
from app.mount.sync.state import StoreState
from tests.support.waiting import until


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def used_bytes(directory: Path) -> int:
    """While files may go away."""
    used = 0
    for file in files(directory):
        with suppress(FileNotFoundError):
            used += file.stat().st_size
    return used


# The cache


def test_a_content_is_found_again_by_the_next_process_and_only_under_its_store(tmp_path: Path) -> None:
    cache = ContentCache(tmp_path / "cache")
    cache.put("one", sha(b"text"), b"text")
    cache.flush()
    for reader in (cache, ContentCache(tmp_path / "cache")):
        assert reader.get("one", sha(b"text")) == b"text"
        assert reader.has("one", sha(b"text"))
        assert reader.get("two", sha(b"text")) is None
        assert not reader.has("two", sha(b"text"))


def test_nobody_else_can_read_the_cache(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        cache = ContentCache(tmp_path / "cache")
        cache.put("one", sha(b"text"), b"text")
        cache.flush()
    finally:
        os.umask(old)
    modes = {path.stat().st_mode & 0o777 for path in [tmp_path / "cache", *(tmp_path / "cache").rglob("*")]}
    assert modes == {0o700, 0o600}


def test_a_damaged_file_is_never_read(tmp_path: Path) -> None:
    cache = ContentCache(tmp_path / "cache")
    cache.put("one", sha(b"text"), b"text")
    cache.flush()
    (file,) = files(tmp_path / "cache")
    file.write_bytes(b"tex")
    again = ContentCache(tmp_path / "cache")
    assert again.get("one", sha(b"text")) is None
    again.put("one", sha(b"text"), b"text")
    again.flush()
    assert file.read_bytes() == b"text"


def test_the_cache_keeps_its_bounds_and_what_was_used_last(tmp_path: Path) -> None:
    texts = [bytes([number]) * 1_000 for number in range(100)]
    cache = ContentCache(tmp_path / "cache", max_bytes=20_000, max_memory_bytes=5_000)
    until(cache._indexed.is_set, "the cache knows what is there")
    for text in texts:
        cache.put("one", sha(text), text)
        cache.get("one", sha(texts[0]))
    cache.flush()
    assert used_bytes(tmp_path / "cache") <= 20_000
    assert cache._memory_bytes == sum(map(len, cache._memory.values())) <= 5_000
    held = [cache.get("one", sha(text)) == text for text in texts]
    assert held[0]
    assert all(held[-15:])
    assert sum(held) <= 25


def test_the_next_process_keeps_the_bound_too(tmp_path: Path) -> None:
    first = ContentCache(tmp_path / "cache")
    for number in range(50):
        first.put("one", sha(b"%04d" % number * 250), b"%04d" % number * 250)
    first.flush()
    ContentCache(tmp_path / "cache", max_bytes=10_000)
    until(lambda: used_bytes(tmp_path / "cache") <= 10_000, "the bound is kept")


def test_what_no_user_needs_never_comes_to_the_disk(tmp_path: Path) -> None:
    texts = [b"%04d" % number * 250 for number in range(20)]
    cache = ContentCache(tmp_path / "cache", max_memory_bytes=5_000)
    needed = {sha(texts[3]), sha(texts[-1])}
    cache.add_user("one", needed.__contains__)
    for text in texts:
        cache.put("one", sha(text), text)
    cache.flush()
    assert {file.name for file in files(tmp_path / "cache")} == needed
    needed.add(sha(texts[-2]))  # it is in memory still
    cache.flush()
    assert {file.name for file in files(tmp_path / "cache")} == needed
    needed.remove(sha(texts[3]))
    cache.drop_unused("one", [sha(texts[3]), sha(texts[-1])])
    assert {file.name for file in files(tmp_path / "cache")} == needed
    assert not cache.has("one", sha(texts[3]))


# HTTP


@contextmanager
def listening(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """The URL of a server that answers each request with the next of these, piece by piece; and what it was asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)

        def serve() -> None:
            left = list(answers)
            while left:
                connection, _ = listener.accept()
                with connection:
                    while left and (request := connection.recv(65_536)):
                        asked.append(request)
                        answer = left.pop(0)
                        for start in range(0, len(answer), 7):
                            connection.sendall(answer[start : start + 7])
                        if b"close" in answer or b"HTTP/1.0" in answer or not answer:
                            break

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/base", asked
        finally:
            thread.join()


@contextmanager
def answering(*answers: bytes) -> Iterator[tuple[Connections, list[bytes]]]:
    """Connections to such a server."""
    with listening(*answers) as (url, asked):
        connections = Connections(url, size=2, connect_seconds=5, read_seconds=5)
        try:
            yield connections, asked
        finally:
            connections.close()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello", b"hello"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nT: v\r\n\r\n",
            b"hello",
        ),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello", b"hello"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
    ids=["length", "chunks", "until-closed", "http-1.0", "continue", "no-content"],
)
def test_answers_are_read_whole_and_connections_used_again(answer: bytes, expected: bytes) -> None:
    last = b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno"
    with answering(answer, last) as (connections, asked):
        status, _, body = connections.call("POST", "/base/x", {"a": "b"}, b"data")
        assert (status // 100, body) == (2, expected)
        assert connections.call("GET", "/base/y", {}, None)[::2] == (404, b"no")
    assert asked[0].endswith(b"a: b\r\ncontent-length: 4\r\n\r\ndata")
    assert asked[0].startswith(b"POST /base/x HTTP/1.1\r\nhost: 127.0.0.1:")


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nconnection: close\r\n\r\nhel", b"nonsense close\r\n\r\n"],
    ids=["nothing", "a-part", "no-http"],
)
def test_half_an_answer_is_none(answer: bytes) -> None:
    with answering(answer) as (connections, asked):
        with pytest.raises(Away):
            connections.call("GET", "/", {}, None)
        assert len(asked) == 1, "nothing is sent twice"


def test_a_header_can_not_carry_another() -> None:
    connections = Connections("http://127.0.0.1:1", size=1, connect_seconds=1, read_seconds=1)
    with pytest.raises(ValueError, match="line end"):
        connections.call("GET", "/", {"authorization": "Bearer x\r\nx: y"}, None)


def test_a_snapshot_that_breaks_off_is_no_smaller_store() -> None:
    head = b'{"type":"memory_snapshot","memory_store_id":"m","seq":4,"count":2,"archived_at":null}\n'
    lines = (
        b'{"id":"mem_1","memory_version_id":"memver_1","path":"/a","content":null,"content_sha256":"00",'
        b'"content_size_bytes":0,"updated_at":"2026-11-20T00:00:00.000000Z"}\n'
    )
    for body in (head, head + lines, head + lines + lines[:40]):
        answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body)
        with listening(answer) as (url, _):
            api = StoreApi(url, "m", lambda: "token")
            with pytest.raises(Away):
                list(api.snapshot().memories)
            api.close()


# The schedule

places = st.sampled_from(["/a", "/b", "/a/x", "/a/y", "/a/x/1", "/b/z"])
works = st.lists(st.tuples(st.lists(places, min_size=1, max_size=2), st.booleans()), max_size=12)


def conflict(one: tuple[list[str], bool], other: tuple[list[str], bool]) -> bool:
    if one[1] or other[1]:
        return True
    related = [(a, b) for a in one[0] for b in other[0]]
    return any(a == b or a in contract_paths.ancestors(b) or b in contract_paths.ancestors(a) for a, b in related)


@given(works, st.randoms(use_true_random=False))
def test_a_write_goes_when_nothing_before_it_is_in_its_way(
    work: list[tuple[list[str], bool]], chance: random.Random
) -> None:
    schedule = Schedule()
    unfinished: set[int] = set()
    ready: set[int] = set()

    def may_go(number: int) -> bool:
        return not any(other < number and conflict(work[other], work[number]) for other in unfinished)

    def finish() -> None:
        number = chance.choice(sorted(ready))
        ready.discard(number)
        unfinished.discard(number)
        ready.update(schedule.finish(number))

    for number, (places, is_barrier) in enumerate(work):
        unfinished.add(number)
        if schedule.add(number, places, is_barrier=is_barrier):
            ready.add(number)
        assert ready == {other for other in unfinished if may_go(other)}
        if ready and chance.random() < 0.4:
            finish()
    while unfinished:
        assert ready == {number for number in unfinished if may_go(number)}
        finish()
    assert not schedule._at
    assert not schedule._below


# The state


def entry(path: str, version: int, memory: str = "m") -> Entry:
    return Entry(path, memory, f"v{version}", sha(b"%d" % version), 1, version)


def event(seq: int, path: str, version: int, memory: str = "m") -> Event:
    return Event(seq, memory, f"v{version}", entry(path, version, memory), False)


def state_at(seq: int) -> StoreState:
    state = StoreState()
    state.apply_listing([entry("/a", 1)], state.tick(), seq)
    state.take_changes()
    return state


def test_an_answer_before_its_event_is_not_undone_by_older_events() -> None:
    state = state_at(1)
    state.apply_answer(entry("/a", 4))
    for version in (2, 3):
        state.apply_event(event(version, "/a", version))
        assert state.view["/a"] == entry("/a", 4)
    state.apply_event(event(4, "/a", 4))
    state.apply_event(event(5, "/a", 5))
    assert state.view["/a"].version_id == "v5"


def test_an_answer_after_its_event_does_not_undo_newer_events() -> None:
    state = state_at(1)
    state.apply_event(event(2, "/a", 2))
    state.apply_event(event(3, "/a", 3))
    state.apply_answer(entry("/a", 2))
    assert state.view["/a"].version_id == "v3"


def test_an_answer_during_a_listing_is_not_undone_by_it() -> None:
    state = state_at(1)
    since = state.tick()
    state.apply_answer(entry("/a", 2))
    state.apply_answer(entry("/b", 3, "n"))
    state.apply_listing([entry("/a", 1)], since, None)
    assert {path: each.version_id for path, each in state.view.items()} == {"/a": "v2", "/b": "v3"}


def test_a_delete_is_not_undone_by_older_events() -> None:
    state = state_at(1)
    state.apply_gone("m")
    state.apply_event(event(2, "/a", 2))
    assert state.view == {}


def test_a_doubt_ends_with_what_the_server_says() -> None:
    state = state_at(1)
    state.apply_answer(entry("/a", 2))  # which the feed passed before this state's beginning: it will never tell it
    assert state.doubtful(state.tick()) == ["m"]
    state.settle_doubt("m", entry("/a", 3))
    assert state.view["/a"].version_id == "v3"
    state.apply_event(event(2, "/a", 3))
    state.apply_event(event(3, "/a", 4))
    assert state.view["/a"].version_id == "v4"
    assert state.doubtful(state.tick()) == []


def test_older_news_of_another_memory_does_not_take_a_path_away() -> None:
    """Our write made `n` at the path that `m` had left, and its answer came before the news of that."""
    state = state_at(1)
    state.apply_answer(entry("/b", 5, "n"))
    for older in (event(2, "/b", 2), event(3, "/c", 3)):
        state.apply_event(older)
        assert state.view["/b"] == entry("/b", 5, "n")
    state.apply_event(event(4, "/b", 5, "n"))
    assert state.view == {"/b": entry("/b", 5, "n"), "/c": entry("/c", 3)}
    assert [change.path for change in state.take_changes()] == ["/b", "/a", "/c"]


def test_a_path_that_two_memories_claim_is_the_others_when_one_leaves() -> None:
    state = state_at(1)
    state.apply_answer(entry("/a", 2, "n"), is_write=False)
    assert state.view == {"/a": entry("/a", 2, "n")}
    state.apply_gone("n")
    assert state.view == {"/a": entry("/a", 1)}


@given(st.lists(st.tuples(st.sampled_from("mnop"), st.sampled_from([None, "/a", "/b"]), st.booleans()), max_size=40))
def test_every_memory_has_its_path_or_stands_behind_one_that_has_it(news: list[tuple[str, str | None, bool]]) -> None:
    heads = Heads()
    for number, (memory, path, yields) in enumerate(news):
        if path is None:
            heads.take(memory)
        else:
            heads.put(entry(path, number, memory), yields_to="mnop" if yields else ())
        assert {each.path for each in heads.by_id.values()} == set(heads.by_path)
        assert all(heads.by_id[each.memory_id or ""] is each for each in heads.by_path.values())


@given(st.lists(st.tuples(st.sampled_from("mno"), st.sampled_from([None, 1, 2])), max_size=40))
def test_a_content_is_in_use_while_a_memory_has_it(news: list[tuple[str, int | None]]) -> None:
    state, has = StoreState(), dict[str, str]()
    for seq, (memory, version) in enumerate(news):
        before = set(has.values())
        if version is None:
            has.pop(memory, None)
            state.apply_event(Event(seq, memory, f"d{seq}", None, True))
        else:
            put = event(seq, f"/{memory}", version, memory)
            assert put.entry is not None
            has[memory] = put.entry.sha256
            state.apply_event(put)
        assert state.take_unused() == before - set(has.values())
        assert all(state.uses(sha256) for sha256 in has.values())


# What is remembered

letters = st.characters(exclude_categories=["C", "Z"], exclude_characters="/.")
names = st.text(letters, min_size=1, max_size=20).map(lambda name: unicodedata.normalize("NFC", name))


@given(
    st.lists(st.tuples(st.sampled_from(["m", "n", "o"]), st.none() | names), max_size=30),
    st.integers(0, 3),
    st.integers(0, 60),
)
def test_a_process_that_dies_leaves_what_it_knew_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, news: list[tuple[str, str | None]], at_first: int, cut: int
) -> None:
    directory = tmp_path_factory.mktemp("remembered")
    known = {memory: entry(f"/{memory}-before", 1, memory) for memory in ["m", "n", "o"][:at_first]}
    remembered = Remembered(directory, "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.mount.sync.remembered._BLANK_MAX_BYTES", 1_000)
        remembered.begin(known.values())
        for memory, name in news:
            known.pop(memory, None)
            if name is not None:
                known[memory] = entry(f"/{name}", 2, memory)
            remembered.note(memory, known.get(memory))
    again = Remembered(directory, "store").load()
    assert again is not None
    assert {each.memory_id: each for each in again} == known
    data = (directory / "memories").read_bytes()
    lines = [line for line in data.splitlines()[1:] if line.strip(b" ")]
    assert sorted(lines) == sorted(json.dumps(astuple(each), separators=(",", ":")).encode() for each in again)
    assert len(data) < 5_000
    with (directory / "memories").open("ab") as file:
        file.write(json.dumps(["/torn", "m"] + ["x"] * 20).encode()[:cut])
    assert {each.memory_id: each for each in Remembered(directory, "store").load() or []} == known
    assert Remembered(directory, "another").load() is None
    remembered.forget()
    assert Remembered(directory, "store").load() is None
    assert list(directory.iterdir()) == []


# The feed


class Streams:
    """An API whose first streams end before they say anything."""

    def __init__(self, *ends: ApiError | None) -> None:
        self.asked: list[str] = []
        self.may_speak = threading.Event()
        self._ends = list(ends)

    def changes(self, after: int) -> Page:
        self.asked.append("pages")
        return Page([], after, has_more=False, truncated=False)

    def watch(self, after: int) -> "Streams":
        self.asked.append("stream")
        return self

    def __iter__(self) -> Iterator[Message]:
        if self._ends:
            end = self._ends.pop(0)
            if end is not None:
                raise end
            return
        yield Heartbeat()
        self.may_speak.wait()

    def close(self) -> None:
        pass


@contextmanager
def following(api: Streams, on_mode: Callable[[str], None]) -> Iterator[None]:
    state = StoreState()
    state.apply_listing([], 0, 0)
    follower = feed.Follower(
        api,  # type: ignore[arg-type]
        state,
        threading.RLock(),
        announce=lambda: None,
        on_mode=on_mode,
        on_gone=lambda: None,
        on_refused=lambda: None,
        poll_seconds=0.01,
    )
    follower.start()
    try:
        yield
    finally:
        api.may_speak.set()
        follower.stop(60)


def test_a_stream_that_is_cut_before_its_first_word_is_asked_for_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_SILENT_FEED_SECONDS", 3600.0)  # longer than anybody waits here
    monkeypatch.setattr(feed, "_CUT_FEED_SECONDS", 0.01)
    api, modes = Streams(Away(0, "cut"), None, Away(200, "cut")), list[str]()
    with following(api, modes.append):
        until(lambda: feed.LIVE in modes, "a stream is followed")
    assert api.asked.count("stream") == 4
    assert api.asked[:2] == ["stream", "pages"]
    assert feed.POLLING in modes


def test_where_streams_are_held_back_pages_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_SILENT_FEED_SECONDS", 3600.0)
    api, modes = Streams(TimedOut(0, "nothing came")), list[str]()
    with following(api, modes.append):
        until(lambda: api.asked.count("pages") > 5, "pages are read")
        assert (api.asked.count("stream"), modes) == (1, [feed.POLLING])
