"""Answers that are sent piece by piece: how they end, and that what makes them always does."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from app.contract.errors import AuthenticationFailed, MemstoreError, NotFound, Unavailable
from app.http.replies import Stream
from app.server import streams

pytestmark = pytest.mark.anyio

FAREWELL = b"farewell"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


class Exchange:
    """One stream being sent to a client, whose every part the test decides on."""

    def __init__(self, *, endless: bool) -> None:
        self.pieces: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []
        self.left = asyncio.Event()
        self.draining = asyncio.Event()
        self.may_send = asyncio.Event()
        self.may_send.set()
        self.rechecks: list[bool | MemstoreError] = []
        self.closed = False
        self._arrived = asyncio.Event()
        self.stream = Stream(self._make(), "text/plain", FAREWELL if endless else None)
        self.task = asyncio.create_task(
            streams.send_stream(self.stream, self._receive, self._send, draining=self.draining, recheck=self._recheck)
        )

    async def _make(self) -> AsyncGenerator[bytes, None]:
        try:
            while (piece := await self.pieces.get()) is not None:
                if isinstance(piece, Exception):
                    raise piece
                yield piece
        finally:
            self.closed = True

    async def _receive(self) -> dict[str, Any]:
        if not self._arrived.is_set():
            self._arrived.set()
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await self.may_send.wait()
        self.sent.append(message)

    async def _recheck(self) -> bool:
        answer = self.rechecks.pop(0) if self.rechecks else True
        if isinstance(answer, MemstoreError):
            raise answer
        return answer

    async def has_sent(self, body: bytes) -> None:
        async with asyncio.timeout(30):
            while self.body != body:  # noqa: ASYNC110 - the list is the client's side of the connection
                await asyncio.sleep(0)

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent)

    @property
    def is_complete(self) -> bool:
        """Whether the client was told that this was all."""
        return bool(self.sent) and not self.sent[-1].get("more_body", False)

    async def end(self) -> None:
        async with asyncio.timeout(30):
            await self.task
        assert self.closed, "what makes the pieces is closed"
        assert [message.get("more_body", False) for message in self.sent[:-1]] == [True] * (len(self.sent) - 1)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_RECHECK_SECONDS", 0.001)
    monkeypatch.setattr(streams, "_LAST_WORDS_SECONDS", 0.01)


@pytest.mark.parametrize("endless", [False, True])
async def test_it_ends_when_its_pieces_do(endless: bool) -> None:
    exchange = Exchange(endless=endless)
    for piece in (b"a", b"b", None):
        exchange.pieces.put_nowait(piece)
    await exchange.end()
    assert exchange.is_complete
    assert exchange.body == b"ab"


@pytest.mark.parametrize("endless", [False, True])
async def test_it_ends_when_the_client_leaves(endless: bool) -> None:
    exchange = Exchange(endless=endless)
    exchange.pieces.put_nowait(b"a")
    await exchange.has_sent(b"a")
    exchange.left.set()
    await exchange.end()
    assert not exchange.is_complete


async def test_a_stream_that_goes_on_ends_well_when_the_process_is_to_end() -> None:
    exchange = Exchange(endless=True)
    exchange.pieces.put_nowait(b"a")
    await exchange.has_sent(b"a")
    exchange.draining.set()
    await exchange.end()
    assert exchange.is_complete
    assert exchange.body == b"a"


async def test_one_with_an_end_is_sent_to_its_end_then() -> None:
    exchange = Exchange(endless=False)
    exchange.draining.set()
    exchange.pieces.put_nowait(b"a")
    await exchange.has_sent(b"a")
    exchange.pieces.put_nowait(None)
    await exchange.end()
    assert exchange.is_complete


@pytest.mark.parametrize("refusal", [AuthenticationFailed("revoked"), NotFound("not attached any more")])
async def test_a_caller_that_may_no_longer_is_told_and_sent_off(refusal: MemstoreError) -> None:
    exchange = Exchange(endless=True)
    exchange.rechecks = [True, Unavailable("nothing is known"), True, refusal]
    exchange.pieces.put_nowait(b"a")
    await exchange.end()
    assert exchange.is_complete
    assert exchange.body == b"a" + FAREWELL
    assert exchange.rechecks == []


async def test_a_caller_that_changed_has_to_ask_again() -> None:
    exchange = Exchange(endless=True)
    exchange.rechecks = [True, False]
    await exchange.end()
    assert exchange.is_complete
    assert exchange.body == b""


@pytest.mark.parametrize("error", [Unavailable("the database is away"), RuntimeError("a fault")])
async def test_what_breaks_is_not_passed_off_as_whole(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    exchange = Exchange(endless=False)
    exchange.pieces.put_nowait(b"a")
    exchange.pieces.put_nowait(error)
    await exchange.end()
    assert not exchange.is_complete
    assert str(error) in caplog.text


async def test_a_stream_that_goes_on_may_end_at_any_time(caplog: pytest.LogCaptureFixture) -> None:
    exchange = Exchange(endless=True)
    exchange.pieces.put_nowait(Unavailable("the database is away"))
    await exchange.end()
    assert exchange.is_complete
    assert "the database is away" in caplog.text


async def test_a_client_that_does_not_read_holds_nothing_up() -> None:
    exchange = Exchange(endless=True)
    exchange.may_send.clear()
    exchange.pieces.put_nowait(b"never read")
    await asyncio.sleep(0)
    exchange.draining.set()
    await exchange.end()
    assert exchange.sent == []


async def test_it_is_closed_when_the_server_cancels_it() -> None:
    exchange = Exchange(endless=True)
    exchange.pieces.put_nowait(b"a")
    await exchange.has_sent(b"a")
    exchange.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exchange.task
    assert exchange.closed
