"""A server that is away, slow, wrong or dying: what the client does, and what its user is told."""

import asyncio
import concurrent.futures
import gc
import json
import pickle
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from app.client import (
    ApiError,
    AsyncMemstore,
    Away,
    ChangesExpired,
    Forbidden,
    Memstore,
    Missing,
    PathTaken,
    Rejected,
    TimedOut,
)
from app.client.failures import failure
from tests.client.scripted import Act, answer, broken, events, hang, nobody, scripted
from tests.support.waiting import eventually

STORE = "memstore_1"
TIME = "2026-11-20T00:00:00.000000Z"
STORE_OBJECT = json.dumps({"id": STORE, "name": "n", "created_at": TIME, "updated_at": TIME}).encode()
FOUND, FOUND_AND_END = answer(STORE_OBJECT), answer(STORE_OBJECT, 200, "connection: close")
LATER = answer(b'{"error": {"message": "later"}}', 503, "retry-after: 0")
BUSY = answer(b'{"error": {"message": "busy"}}', 429, "retry-after: 0")
HALF = broken(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")


def half_and_hang(connection: socket.socket) -> bool:
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")
    return hang(connection)


Ask = Callable[..., Any]


@pytest.fixture(params=["threads", "asyncio"])
def ask(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Call a method of the stores of a server, with one kind of client or the other, and nobody waits between calls."""
    kind = "client" if request.param == "threads" else "async_client"
    monkeypatch.setattr("app.client.calls.random", SimpleNamespace(uniform=lambda *_: 0.0))

    def by_threads(url: str, method: str, *arguments: str, **options: Any) -> Any:
        with Memstore(url, "key", **options) as client:
            return getattr(client.stores, method)(*arguments)

    async def by_tasks(url: str, method: str, *arguments: str, **options: Any) -> Any:
        async with AsyncMemstore(url, "key", **options) as client:
            return await getattr(client.stores, method)(*arguments)

    return by_threads if kind == "client" else lambda *all_, **options: asyncio.run(by_tasks(*all_, **options))


@pytest.mark.parametrize("first", [LATER, BUSY, HALF, broken(b"")], ids=["503", "429", "half", "nothing"])
def test_a_read_is_sent_again(first: Act, ask: Ask) -> None:
    with scripted(first, first, FOUND) as server:
        assert ask(server.url, "retrieve", STORE).id == STORE
        assert len(server.requests) == 3


def test_a_write_is_sent_again_only_where_it_was_refused_undone(ask: Ask) -> None:
    with scripted(BUSY, BUSY, FOUND) as server:
        assert ask(server.url, "create", "n").id == STORE
        assert len(server.requests) == 3
    for first in (LATER, HALF, broken(b"")):
        with scripted(first, FOUND) as server:
            with pytest.raises(Away) as told:
                ask(server.url, "create", "n")
            assert told.value.was_sent
            assert len(server.requests) == 1


def test_a_server_that_stays_away_is_told_of(ask: Ask) -> None:
    with scripted(LATER) as server:
        with pytest.raises(Away, match="later") as told:
            ask(server.url, "retrieve", STORE, retries=4)
        assert (told.value.status, len(server.requests)) == (503, 5)
    with nobody() as url, pytest.raises(Away) as told:
        ask(url, "create", "n")
    assert (told.value.status, told.value.was_sent) == (0, False)


def test_an_answer_that_does_not_come_is_given_up_and_not_asked_for_again(ask: Ask) -> None:
    for act in (hang, half_and_hang):
        with scripted(act, FOUND) as server, pytest.raises(TimedOut):  # asked again, it would answer
            ask(server.url, "retrieve", STORE, timeout=0.2)


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b"{}", b'{"id": 7}', b'{"id": "a", "name": "n", "created_at": "now"}', b"[" * 100_000]
)
def test_an_answer_of_something_else_is_none(body: bytes, ask: Ask) -> None:
    with scripted(answer(body)) as server:
        with pytest.raises(Away, match="the answer is not one of this API"):
            ask(server.url, "retrieve", STORE)
        assert len(server.requests) == 1


def test_a_redirect_is_not_followed_with_the_key(ask: Ask) -> None:
    with (
        scripted(answer(b"", 302, "location: http://elsewhere.invalid/")) as server,
        pytest.raises(Rejected, match="302"),
    ):
        ask(server.url, "retrieve", STORE)


def test_a_connection_serves_again_until_the_server_ends_it(ask: Ask) -> None:
    with scripted(FOUND) as server, Memstore(server.url, "key") as client:
        for _ in range(5):
            client.stores.retrieve(STORE)
        assert server.connections == 1
        client.close()
        assert client.stores.create("n").id == STORE
        assert server.connections == 2
    with scripted(FOUND_AND_END) as server, Memstore(server.url, "key") as client:
        for _ in range(3):
            client.stores.create("n")
        assert server.connections == 3


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the first loop, in which nobody closes the client
def test_one_client_serves_one_event_loop_after_the_other() -> None:
    async def once(client: AsyncMemstore) -> None:
        await client.stores.retrieve(STORE)

    with scripted(FOUND) as server:
        client = AsyncMemstore(server.url, "key")
        for _ in range(2):
            asyncio.run(once(client))
        asyncio.run(client.close())
        gc.collect()
        assert server.connections == 2


def test_threads_share_a_client_and_no_more_connections_than_it_may_have() -> None:
    with scripted(FOUND) as server, Memstore(server.url, "key", connections=2) as client:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: client.stores.retrieve(STORE).id, range(100)))
        assert found == [STORE] * 100
        assert server.connections <= 2


def test_a_forked_process_takes_connections_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(FOUND) as server, Memstore(server.url, "key") as client:
        client.stores.retrieve(STORE)
        kept = client._wire._connections._idle[0]
        monkeypatch.setattr("app.client.exchange.os", SimpleNamespace(getpid=lambda: -1))
        client.stores.retrieve(STORE)
        assert server.connections == 2
        kept.close()


def test_a_cancelled_task_takes_its_connection_along() -> None:
    async def run(url: str) -> None:
        async with AsyncMemstore(url, "key", connections=1) as client:
            task = asyncio.create_task(client.stores.create("n"))
            await eventually(lambda: server.requests, "the request came")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await client.stores.retrieve(STORE)).id == STORE

    with scripted(hang, FOUND) as server:
        asyncio.run(run(server.url))
        assert server.connections == 2


# The feed


def change(seq: int) -> bytes:
    told = {
        "seq": seq, "operation": "created", "memory_store_id": STORE, "memory_id": "mem_1", "path": f"/{seq}",
        "memory_version_id": "memver_1", "created_at": TIME, "content_sha256": "0", "content_size_bytes": 1,
    }  # fmt: skip
    return b"id: %d\nevent: change\ndata: %b\n\n" % (seq, json.dumps(told).encode())


GONE, TRUNCATED = b"event: gone\ndata: {}\n\n", b'event: truncated\ndata: {"last_seq": 9}\n\n'
CUT = broken(b"")


@pytest.fixture(params=["threads", "asyncio"])
def follow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """The numbers of the changes that a feed gives until it raises, and what it raises."""
    kind = "client" if request.param == "threads" else "async_client"
    monkeypatch.setattr("app.client.calls.random", SimpleNamespace(uniform=lambda *_: 0.0))

    def by_threads(url: str, **options: Any) -> tuple[list[int], ApiError, int]:
        seen = []
        with Memstore(url, "key") as client, client.follow(STORE, **options) as feed:
            try:
                for found in feed:
                    seen.append(found.seq)  # noqa: PERF401 - it ends with an exception
            except ApiError as error:
                return seen, error, feed.seq
        raise AssertionError("a feed that nobody closed ended")

    async def by_tasks(url: str, **options: Any) -> tuple[list[int], ApiError, int]:
        seen = []
        async with AsyncMemstore(url, "key") as client, client.follow(STORE, **options) as feed:
            try:
                async for found in feed:
                    seen.append(found.seq)  # noqa: PERF401
            except ApiError as error:
                return seen, error, feed.seq
        raise AssertionError("a feed that nobody closed ended")

    return by_threads if kind == "client" else lambda url, **options: asyncio.run(by_tasks(url, **options))


def test_a_feed_goes_on_where_it_was_whatever_the_server_does(follow: Ask) -> None:
    acts = [
        events(b": alive\n\n", change(1), change(2)[:-3], then=CUT),  # dies within a change
        LATER,
        broken(b"HTTP/1.1 20"),
        events(change(2), change(2), change(1), then=CUT),  # tells twice
        events(change(3), GONE),
    ]
    with scripted(*acts) as server:
        seen, error, last = follow(server.url)
        assert (seen, last) == ([1, 2, 3], 3)
        assert isinstance(error, Missing)
        asked = [request.split(" ")[1].partition("after=")[2] for request in server.requests]
        assert asked == ["0", "1", "1", "1", "2"]


def test_a_feed_says_that_changes_have_expired(follow: Ask) -> None:
    with scripted(events(change(6), TRUNCATED)) as server:
        seen, error, last = follow(server.url, after=5)
    assert isinstance(error, ChangesExpired)
    assert (seen, error.last_seq, last) == ([6], 9, 9)


def test_a_feed_that_is_refused_or_is_none_says_so(follow: Ask) -> None:
    with scripted(answer(b'{"error": {"message": "no"}}', 403)) as server:
        assert isinstance(follow(server.url)[1], Forbidden)
    with scripted(answer(b"<html>", kind="text/html")) as server:
        assert "no stream of changes" in str(follow(server.url)[1])


def test_the_patience_of_a_feed_ends(follow: Ask) -> None:
    with nobody() as url:
        assert isinstance(follow(url, patience=0.0)[1], Away)


# What the exceptions are


def test_an_exception_gets_to_another_process_whole() -> None:
    body = {
        "type": "memory_path_conflict_error",
        "message": "m",
        "conflicting_memory_id": "mem_1",
        "conflicting_path": "/a",
    }
    taken = pickle.loads(pickle.dumps(failure(409, {}, json.dumps({"error": body}).encode())))
    assert isinstance(taken, PathTaken)
    assert (taken.status, str(taken), taken.conflicting_path) == (409, "m", "/a")
    away = pickle.loads(pickle.dumps(failure(503, {"retry-after": "7"}, b"")))
    assert (type(away), away.retry_after, away.was_sent) == (Away, 7.0, True)


def test_what_a_server_says_does_not_reach_a_terminal_raw() -> None:
    error = failure(400, {}, b'{"error": {"message": "\\u001b[2J\\u202e"}}')
    assert str(error).isprintable()
