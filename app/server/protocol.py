"""HTTP/1.1 on one connection: uvicorn's protocol with bounds on what somebody can cost who has shown no key yet.

Uvicorn and its parser take heads of any size and wait for the rest of a request for ever. Here a head has a greatest
size, number of fields and time, a body a slowest rate, an answer a client that reads it, and the connections whose head
is still awaited a greatest number. What is over a bound is refused in the API's envelope, and the connection ends.
"""

import asyncio
import contextlib
import fcntl
import logging
import sys
import termios
from typing import ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.contract import ids
from app.contract.errors import HeadTooLarge, InvalidRequest, MemstoreError, RequestTimeout
from app.server.envelope import envelope

_log = logging.getLogger(__name__)
# A level would be set back when a worker configures its logs; a filter stays.
_log.addFilter(lambda record: record.levelno >= logging.ERROR)
"""What can't be parsed gets an answer, and no line: nobody without a key fills a log."""

_NOTHING_READ_BYTES = 8_388_608
"""What is still read, and thrown away, of a request that was answered before its end: an end of the connection under a
client that sends would take the answer away from it."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection. The bounds are attributes of the class."""

    head_bytes: ClassVar[int] = 65_536
    """Of a request line with all fields; and of what may lie between two pieces of a body."""
    head_fields: ClassVar[int] = 256
    head_seconds: ClassVar[float] = 30.0
    """From the connection, or from the first byte of a further request, to the end of the head."""
    body_seconds: ClassVar[float] = 30.0
    body_bytes: ClassVar[int] = 15_000
    """How much of a body comes within that time at least, unless it ends or we don't want more."""
    stalled_seconds: ClassVar[float] = 120.0
    """How long a client may read nothing of an answer that waits for it."""
    linger_seconds: ClassVar[float] = 2.0
    """How long a client that was answered before its request was whole may neither read nor send before the end."""
    linger_most_seconds: ClassVar[float] = 30.0
    """How long it may go on sending."""
    waiting_most: ClassVar[int] = 1_000
    """Connections of a process whose head is awaited; the oldest makes room for one more."""

    _waiting: ClassVar[dict["BoundedProtocol", None]] = {}
    """Those, oldest first."""

    _timer: asyncio.TimerHandle | None = None
    """Of the head or of the body, whichever is awaited."""
    _stall: asyncio.TimerHandle | None = None
    _in_head = True
    _in_body = False
    _is_ending = False
    """Nothing that comes is a request any longer."""
    _head = 0
    """Bytes of the head so far."""
    _was_whole = False
    """A request ended in what is parsed now: bytes behind it are the next head's, and few."""
    _pieces = 0
    """Bytes of the body since the timer was set."""
    _between = 0
    """Bytes since the last piece of the body."""
    _thrown_away = 0
    _unsent = 0
    _last_word: MemstoreError | None = None
    """Why the connection ends once the requests before are answered."""
    _fed = b""
    """What the parser was given last."""
    _is_offer = False
    """The request that is parsed offers another protocol; it is parsed again without that."""
    _again = b""
    """What is to be parsed next: such a request and what came behind it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head, but not for ever."""
        super().connection_made(transport)
        self._for_answers = _ForAnswers(self, transport)
        self.logger = _log
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel every timer that watches the connection."""
        self._await_nothing()
        if self._stall is not None:
            self._stall.cancel()
        self._for_answers.close = self.transport.close  # What refers to itself is collected late.
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, as far as the bounds go."""
        if self._last_word is not None:
            self.flow.pause_reading()  # An answer that is awaited asks for more now and then; it needs nothing.
            return
        if self._in_head and not self._head and len(data) <= self.head_bytes and not self._is_ending:
            # The usual case: a whole request in one piece.
            self._was_whole = False
            self._feed(data)
            if self.parser is not None and not self._is_ending:
                self._head = len(data) if self._in_head and not self._was_whole else 0
                self._await_the_rest()
            return
        if self._is_ending or (self.cycle is not None and self.cycle.response_complete and self._in_body):
            self._throw_away(len(data))
            if self._is_ending:
                return
        rest = memoryview(data)
        while len(rest) and not self._is_ending:
            room = self.head_bytes - (self._head if self._in_head else self._between)
            if room <= 0:
                self._refuse(HeadTooLarge(f"the head of a request may have {self.head_bytes:,} bytes"))
                return
            part, rest = rest[:room], rest[room:]
            was_in_head, pieces, self._was_whole = self._in_head, self._pieces, False
            # The parser keeps what it is given, and a view would keep all of `data`.
            self._feed(bytes(part) if len(rest) or len(part) != len(data) else data)
            if self.parser is None or self._is_ending or self.transport.is_closing():
                return
            if self._in_head:
                self._head = 0 if self._was_whole else self._head + len(part)
            elif self._in_body:
                self._between = 0 if self._pieces != pieces or was_in_head else self._between + len(part)
        self._await_the_rest()

    def _feed(self, data: bytes) -> None:
        """Let the parser read."""
        while data and self.parser is not None and not self._is_ending:
            self._fed, self._again = data, b""
            super().data_received(data)
            data = self._again
        self._fed = self._again = b""

    def _await_the_rest(self) -> None:
        """See that what has begun comes to an end."""
        if self._timer is None:
            if self._in_body:
                self._await_body()
            elif self._head:
                self._await_head()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        if len(self.headers) > self.head_fields:
            raise HeadTooLarge(f"a request may have {self.head_fields} header fields")
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise InvalidRequest("this is no proxy; send an ordinary request")
            if self._get_upgrade() == b"websocket":
                raise InvalidRequest("there are no websockets here; send an ordinary request")
            self._is_offer = True
            return
        super().on_headers_complete()
        self.cycle.transport = self._for_answers  # type: ignore[assignment]  # as much of one as an answer needs
        self.headers = []  # Trailers are nobody's.
        if self._timer is not None:
            self._await_nothing()
        self._in_head, self._in_body = False, True
        self._head = self._between = self._pieces = self._thrown_away = 0

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._pieces += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._is_offer:
            return
        if self._timer is not None:
            self._await_nothing()
        self._in_head, self._in_body, self._was_whole = True, False, True
        super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Ignore an offer of another protocol, as Java's client makes it with each request.

        The parser skips the body of such a request, so another one reads it as a client without that offer sends it.
        """
        upgrade = sys.exc_info()[1]
        assert isinstance(upgrade, httptools.HttpParserUpgrade)
        line = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        fields = [b"%b: %b" % field for field in self.headers if field[0] != b"upgrade"]
        self._again = b"\r\n".join([line, *fields, b"", b""]) + self._fed[upgrade.args[0] :]
        self._is_offer = False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def send_400_response(self, msg: str) -> None:
        """What can't be parsed, or what a callback above refused."""
        problem = _reason()
        self._refuse(problem if isinstance(problem, MemstoreError) else InvalidRequest("this is no HTTP request"))

    def pause_writing(self) -> None:
        """More waits for the client than fits; see that it reads."""
        super().pause_writing()
        self._unsent = self.transport.get_write_buffer_size()
        self._stall = self.loop.call_later(self.stalled_seconds, self._see_it_read)

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _see_it_read(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent >= self._unsent:
            self.transport.abort()
            return
        self._unsent = unsent
        self._stall = self.loop.call_later(self.stalled_seconds, self._see_it_read)

    def _await_head(self) -> None:
        self._timer = self.loop.call_later(self.head_seconds, self._head_is_late)
        self._waiting[self] = None
        if len(self._waiting) > self.waiting_most:
            next(iter(self._waiting))._make_room()

    def _await_body(self) -> None:
        self._pieces = 0
        self._timer = self.loop.call_later(self.body_seconds, self._body_is_due)

    def _await_nothing(self) -> None:
        self._waiting.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_is_late(self) -> None:
        self._refuse(RequestTimeout(f"the head of a request must be there within {self.head_seconds:g} seconds"))

    def _make_room(self) -> None:
        self._refuse(RequestTimeout("too many connections wait for a request's head, and this one has waited longest"))

    def _body_is_due(self) -> None:
        self._timer = None
        is_answered = self.cycle is None or self.cycle.response_complete
        if self._pieces < self.body_bytes and (is_answered or not self.flow.read_paused):
            self._refuse(
                RequestTimeout(f"{self.body_bytes:,} bytes of a body must come every {self.body_seconds:g} seconds")
            )
        else:
            self._await_body()

    def _throw_away(self, size: int) -> None:
        """Read on for a while after the answer, so that the client gets to read it."""
        self._thrown_away += size
        if self._thrown_away > _NOTHING_READ_BYTES:
            had_answers = self.cycle is not None
            if not self._is_ending:
                self.end_kindly()
            elif had_answers:
                self.flow.pause_reading()  # An end now could take them away.
            else:
                self.transport.abort()

    def _refuse(self, error: MemstoreError) -> None:
        """Say why, if nothing else was said, and end the connection. Requests that came whole are answered before."""
        if self._is_ending or self.transport.is_closing():
            return
        self._is_ending = True
        self._await_nothing()
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self._end(error if self._in_head else None)
        elif self._in_head:
            self._last_word = error
        elif self.pipeline and self.pipeline[0][0] is cycle:
            self.pipeline.popleft()  # Its turn has not come, and it never becomes whole.
            self._last_word = error
        else:
            cycle.disconnected = True
            cycle.message_event.set()
            self._end(None if cycle.response_started else error)

    def on_response_complete(self) -> None:
        """One answer is out: the next one's turn, or the last word's."""
        if self._is_ending and self._last_word is None:
            self.server_state.total_requests += 1
            return
        was_last = not self.pipeline
        super().on_response_complete()
        if was_last and self._last_word is not None and not self.transport.is_closing():
            error, self._last_word = self._last_word, None
            self._end(error)

    def shutdown(self) -> None:
        """The server stops."""
        if self.cycle is not None and self.cycle.response_complete:
            self.end_kindly()
        else:
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """No further request came."""
        self.end_kindly()

    def end_kindly(self) -> None:
        """End the connection behind an answer, at once unless the client may still be sending."""
        if self.transport.is_closing() or not (self._in_body or self.pipeline or self._is_ending):
            self.transport.close()
            return
        self._is_ending = True
        self._last_word = None
        self.pipeline.clear()
        self._await_nothing()
        self._end(None)

    def _end(self, error: MemstoreError | None) -> None:
        """Say the last word, if there is one, and let the client read it."""
        self._unset_keepalive_if_required()
        self.flow.resume_writing()
        if error is not None:
            self.transport.write(_answer(error))
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write_eof()
        self.flow.resume_reading()
        self._let_it_read(self._on_its_way() + 1, self._thrown_away, self.loop.time() + self.linger_most_seconds)

    def _on_its_way(self) -> int:
        """Bytes of answers that the client's host has not acknowledged. An end while it sends would take them away."""
        in_kernel = bytes(4)
        with contextlib.suppress(OSError):
            in_kernel = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, in_kernel)
        return self.transport.get_write_buffer_size() + int.from_bytes(in_kernel, sys.byteorder)

    def _let_it_read(self, unsent: int, thrown_away: int, until: float) -> None:
        """Wait while the client reads, and until some time while it sends.

        When this began, `unsent` bytes were before it and `thrown_away` had come from it.
        """
        left = self._on_its_way()
        if left < unsent or (self._thrown_away > thrown_away and self.loop.time() < until):
            again = self._thrown_away
            self._timer = self.loop.call_later(self.linger_seconds, self._let_it_read, left, again, until)
        else:
            self.transport.abort()


class _ForAnswers:
    """What an answer needs of a connection, which ends only when the client has its answer."""

    def __init__(self, protocol: BoundedProtocol, transport: asyncio.Transport) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = protocol.end_kindly


def _reason() -> BaseException | None:
    """What a callback of the parser raised, while the parser's own exception is handled."""
    handled = sys.exc_info()[1]
    return handled.__context__ if isinstance(handled, httptools.HttpParserCallbackError) else None


def _answer(error: MemstoreError) -> bytes:
    request_id = ids.new(ids.REQUEST)
    body = envelope(error, request_id)
    fields = {
        **error.headers(),
        "content-type": "application/json",
        "content-length": str(len(body)),
        "request-id": request_id,
        "connection": "close",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return STATUS_LINE[error.status] + head.encode() + b"\r\n" + body
