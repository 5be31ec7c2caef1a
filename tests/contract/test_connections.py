"""What somebody without a key can cost: heads, connections and bodies have bounds, and what is over one is told."""

import asyncio
import contextlib
import itertools
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import httpx2
import pytest
import uvicorn

from app.server.protocol import BoundedProtocol
from tests.contract.shapes import REQUEST_ID, is_id
from tests.support.servers import Server
from tests.support.waiting import until

pytestmark = pytest.mark.any_backend

SECONDS = 60.0
HEAD_BYTES = 65_536
BUSY_TIMES = 20
"""How often a busy machine may miss a quick bound before the fault is the code's."""


class Patient(BoundedProtocol):
    """Time enough for whatever is sent on a busy machine."""

    head_seconds = body_seconds = linger_seconds = linger_most_seconds = SECONDS
    waiting_most = 20
    _waiting: ClassVar[dict[BoundedProtocol, None]] = {}


class QuickBody(Patient):
    """A body's time is one that a test can wait for."""

    body_seconds = 0.3
    body_bytes = 1_000
    linger_seconds = 0.5
    linger_most_seconds = 1.0
    _waiting: ClassVar[dict[BoundedProtocol, None]] = {}


class Quick(QuickBody):
    """All bounds are such that a test can wait for them; a busy machine may miss them as well."""

    head_seconds = stalled_seconds = 0.3
    _waiting: ClassVar[dict[BoundedProtocol, None]] = {}


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the size of the body; `/early` before it has read it, `/large` with 32 MB."""
    assert scope["type"] == "http"
    size, more = 0, scope["path"] != "/early"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
        more = message["more_body"]
    body = b"x" * 32_000_000 if scope["path"] == "/large" else b"%d" % size
    head = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


@contextlib.contextmanager
def listening(protocol: type[BoundedProtocol]) -> Iterator[tuple[str, int]]:
    """Where a small application listens."""
    config = uvicorn.Config(echo, http=protocol, ws="none", lifespan="off", log_level="critical", access_log=False)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        yield listener.getsockname()
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def patient() -> Iterator[tuple[str, int]]:
    with listening(Patient) as address:
        yield address


@pytest.fixture(scope="module")
def quick_body() -> Iterator[tuple[str, int]]:
    with listening(QuickBody) as address:
        yield address


@pytest.fixture(scope="module")
def quick() -> Iterator[tuple[str, int]]:
    with listening(Quick) as address:
        yield address


@contextlib.contextmanager
def connected(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=SECONDS) as connection:
        yield connection


def answer(connection: socket.socket) -> bytes:
    """The next answer, whole, however many pieces it comes in."""
    received = b""
    while not (found := re.search(rb"content-length: (\d+)\r\n(?:.*\r\n)*?\r\n", received)) or len(
        received
    ) < found.end() + int(found[1]):
        piece = connection.recv(65_536)
        assert piece, received
        received += piece
    return received


def address_of(server: Server) -> tuple[str, int]:
    host, _, port = server.base_url.removeprefix("http://").partition(":")
    return host, int(port)


def everything(connection: socket.socket) -> bytes:
    """What comes until the other side ends the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65_536):
            received += chunk
    return received


def answers(connection: socket.socket, number: int) -> list[bytes]:
    """The bodies of the next answers, each of which is a 200; no byte behind them is read."""
    bodies = []
    with connection.makefile("rb", buffering=0) as incoming:

        def read(stop: Callable[[bytes], bool]) -> bytes:
            text = b""
            while not stop(text):
                byte = incoming.read(1)
                assert byte, text
                text += byte
            return text

        for _ in range(number):
            head = read(lambda text: text.endswith(b"\r\n\r\n"))
            assert head.startswith(b"HTTP/1.1 200 "), head
            size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            bodies.append(read(lambda text, size=size: len(text) == size))  # type: ignore[misc]
    return bodies


def refusal(received: bytes, status: int) -> dict[str, Any]:
    """The one refusal that was received, in the envelope."""
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), received[:200]
    assert b"connection: close" in head
    answer: dict[str, Any] = json.loads(body)
    assert is_id(answer["request_id"], REQUEST_ID)
    assert f"request-id: {answer['request_id']}".encode() in head
    error: dict[str, Any] = answer["error"]
    return error


def send_while_taken(connection: socket.socket, piece: bytes, most: int) -> int:
    """Send the piece again and again until `most` bytes are out or the other side takes no more; how many went out."""
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < most:
            connection.sendall(piece)
            sent += len(piece)
    return sent


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"GET / HTTP/1.1\r\na: ", b"x" * 65_536),
        (b"GET / HTTP/1.1\r\n", b"a: b\r\n" * 10_000),
        (b"GET /", b"x" * 65_536),
        (b"GET /?", b"x" * 1_000),
        (b"GET / HTTP/1.1\r\n", b"a" * 65_536),
        (b"", b"\r\n" * 30_000),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\na: ", b"x" * 65_536),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n" * 10_000),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1;a=", b"x" * 65_536),
    ],
    ids=["value", "fields", "path", "query", "name", "lines", "trailer", "trailers", "extension"],
)
def test_a_head_of_64_megabytes_is_read_no_further_than_its_bound(server: Server, start: bytes, piece: bytes) -> None:
    with connected(address_of(server)) as connection:
        connection.sendall(start)
        assert send_while_taken(connection, piece, 64_000_000) < 16_000_000
        received = everything(connection)
    if received and not start.startswith(b"POST"):  # a stranger's POST has its 401 by then
        assert refusal(received, 431)["type"] == "request_too_large" if piece != b"\r\n" * 30_000 else True


@pytest.mark.parametrize("pieces", [1, 7, 1_000])
def test_a_head_at_the_bound_is_read_and_one_byte_more_is_431(patient: tuple[str, int], pieces: int) -> None:
    start, end = b"GET / HTTP/1.1\r\nhost: x\r\na: ", b"\r\n\r\n"
    for more, status in ((0, 200), (1, 431)):
        head = start + b"x" * (HEAD_BYTES - len(start) - len(end) + more) + end
        with connected(patient) as connection:
            step = -(-len(head) // pieces)
            with contextlib.suppress(ConnectionError):
                for place in range(0, len(head), step):
                    connection.sendall(head[place : place + step])
            if status == 200:
                assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
            else:
                assert "65,536 bytes" in refusal(everything(connection), 431)["message"]


def test_more_than_256_fields_are_431(server: Server) -> None:
    for number, status in ((255, b"401"), (256, b"431")):
        fields = b"".join(b"a%d: b\r\n" % each for each in range(number))
        with connected(address_of(server)) as connection:
            connection.sendall(b"GET /v1/memory_stores HTTP/1.1\r\nhost: x\r\n" + fields + b"\r\n")
            assert connection.recv(65_536).split(b" ")[1] == status


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nhost: x\r\n", b"\r\n"])
def test_half_a_head_is_waited_for_until_its_time_is_over(quick: tuple[str, int], sent: bytes) -> None:
    with connected(quick) as connection:
        connection.sendall(sent)
        assert "within 0.3 seconds" in refusal(everything(connection), 408)["message"]


def test_a_head_that_drips_has_no_more_time_than_another(quick: tuple[str, int]) -> None:
    with connected(quick) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        stop = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not stop.wait(0.02):
                    connection.sendall(b"a: b\r\n")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            refusal(everything(connection), 408)
        finally:
            stop.set()
            dripping.join()


def test_the_next_head_of_a_connection_has_its_time_from_its_first_byte(quick: tuple[str, int]) -> None:
    whole = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
    for _ in range(BUSY_TIMES):
        with connected(quick) as connection:
            connection.sendall(whole)
            if not answer(connection).startswith(b"HTTP/1.1 200 "):
                continue
            time.sleep(2 * Quick.head_seconds)  # nothing is to happen meanwhile: an idle connection is kept
            connection.sendall(whole[:10])
            refusal(everything(connection), 408)
            return
    pytest.fail("no request was answered in time")


def test_a_body_that_drips_is_408(quick_body: tuple[str, int]) -> None:
    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n"
    for start in (head, head + b"x" * 999):
        with connected(quick_body) as connection:
            connection.sendall(start)
            assert "1,000 bytes of a body" in refusal(everything(connection), 408)["message"]


def test_a_body_that_flows_is_read_though_it_takes_longer_than_one_may_stay_away(quick_body: tuple[str, int]) -> None:
    for _ in range(BUSY_TIMES):
        with connected(quick_body) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n")
            for _ in range(20):
                connection.sendall(b"x" * 5_000)
                time.sleep(QuickBody.body_seconds / 6)
            if answer(connection).endswith(b"\r\n\r\n100000"):
                return
    pytest.fail("no body was read to its end")


def test_who_was_answered_early_and_sends_no_more_is_let_go_without_another_word(quick_body: tuple[str, int]) -> None:
    with connected(quick_body) as connection:
        connection.sendall(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\nx")
        received = everything(connection)
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "start", [b"HTTP/1.1", b"HTTP/1.1\r\nconnection: close", b"HTTP/1.0"], ids=["1.1", "close", "1.0"]
)
@pytest.mark.parametrize("is_answered", [True, False], ids=["answered", "at once"])
def test_an_early_answer_is_there_though_three_megabytes_follow_its_request(
    patient: tuple[str, int], start: bytes, is_answered: bool
) -> None:
    with connected(patient) as connection:
        connection.sendall(b"POST /early " + start + b"\r\nhost: x\r\ncontent-length: 3000000\r\n\r\n")
        if is_answered:
            connection.recv(1, socket.MSG_PEEK)
        connection.sendall(b"x" * 2_999_999)
        assert answer(connection).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"x")
        if start != b"HTTP/1.1":
            assert connection.recv(1) == b"", "the end is no reset"


@pytest.mark.parametrize("field", [b"", b"connection: close\r\n"], ids=["open", "close"])
def test_what_follows_an_early_answer_is_not_waited_for_for_ever(quick_body: tuple[str, int], field: bytes) -> None:
    with connected(quick_body) as connection:
        connection.sendall(b"POST /early HTTP/1.1\r\nhost: x\r\n" + field + b"content-length: 64000000\r\n\r\n")
        answer(connection)

        def drip() -> bool:
            try:
                connection.sendall(b"x")
            except ConnectionError:
                return True
            return False

        until(drip, "the connection ends under a client that sends byte after byte")


@pytest.mark.parametrize("field", [b"", b"connection: close\r\n"], ids=["open", "close"])
def test_what_follows_an_early_answer_is_not_read_for_ever(quick_body: tuple[str, int], field: bytes) -> None:
    with connected(quick_body) as connection:
        connection.sendall(b"POST /early HTTP/1.1\r\nhost: x\r\n" + field + b"transfer-encoding: chunked\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
        assert send_while_taken(connection, b"10000\r\n" + b"x" * 65_536 + b"\r\n", 64_000_000) < 32_000_000


def test_who_does_not_read_an_answer_is_let_go(quick: tuple[str, int]) -> None:
    with connected(quick) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        connection.sendall(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        time.sleep(4 * Quick.stalled_seconds)  # nothing is read meanwhile
        assert len(everything(connection)) < 32_000_000


def test_one_connection_too_many_ends_the_one_that_waited_longest(patient: tuple[str, int]) -> None:
    with contextlib.ExitStack() as opened:
        connections = [opened.enter_context(connected(patient)) for _ in range(Patient.waiting_most + 1)]
        assert b"HTTP/1.1 408 " in everything(connections[0])
        connections[-1].sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert connections[-1].recv(65_536).startswith(b"HTTP/1.1 200 ")
    until(lambda: not Patient._waiting, "nobody waits")


def test_a_websocket_is_refused_and_another_protocol_ignored(server: Server) -> None:
    for protocol, status in (("websocket", 400), ("h2c", 401)):
        with connected(address_of(server)) as connection:
            connection.sendall(
                b"GET /v1/memory_stores HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\n"
                b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nupgrade: " + protocol.encode() + b"\r\n\r\n"
            )
            refusal(everything(connection), status)


OFFER = (
    b"POST / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: 16\r\nHost: x\r\n"
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nUpgrade: h2c\r\n\r\n"
)
"""As Java's HTTP client sends every request."""
BESIDE = b"\r\nupgrade: h2c\r\n"
"""A body that looks like the offer."""


@pytest.mark.parametrize("protocol", [b"h2c", b"H2C", b"TLS/1.0, IRC/6.9"])
@pytest.mark.parametrize(
    "splits", [(), (-16,), (10,), (-18,), (-20,), (-22,), (-30,), (-18, -17), (-40, -19, -1)], ids=str
)
def test_a_body_is_read_beside_an_offer_of_another_protocol(
    patient: tuple[str, int], protocol: bytes, splits: tuple[int, ...]
) -> None:
    whole = OFFER.replace(b"h2c", protocol) + BESIDE
    with connected(patient) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):  # the connection goes on
            places = [0, *sorted(place % len(whole) for place in splits), len(whole)]
            for start, end in itertools.pairwise(places):
                connection.sendall(whole[start:end])
                time.sleep(0.01 * bool(splits))  # so that it arrives in pieces; if not, the test is only weaker
            assert answers(connection, 1) == [b"16"]


def test_offers_that_come_together_are_answered_one_after_the_other(patient: tuple[str, int]) -> None:
    chunked = OFFER.replace(b"Content-Length: 16", b"Transfer-Encoding: chunked")
    get = OFFER.replace(b"POST", b"GET").replace(b"Content-Length: 16\r\n", b"")
    with connected(patient) as connection:
        connection.sendall((OFFER + BESIDE + chunked + b"3\r\nabc\r\n0\r\n\r\n" + get) * 500)
        assert answers(connection, 1_500) == [b"16", b"3", b"0"] * 500


RUBBISH = {
    "text": b"rubbish rubbish",
    "tls": b"\x16\x03\x01\x02\x00\r\n\r\n",
    "zeros": b"\0" * 100_000,
    "field": b"GET / HTTP/1.1\r\na b: c\r\n\r\n",
    "websocket": b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    "chunk": b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    "chunks": b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\nzz\r\n",
    "connect": b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n",
}


@pytest.mark.parametrize("rubbish", RUBBISH.values(), ids=RUBBISH)
@pytest.mark.parametrize("before", [1, 3])
def test_what_came_whole_is_answered_before_the_rubbish_behind_it_is_refused(
    patient: tuple[str, int], rubbish: bytes, before: int
) -> None:
    with connected(patient) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}" * before + rubbish)
        assert answers(connection, before) == [b"2"] * before
        refusal(everything(connection), 400)


def test_an_answer_that_takes_long_comes_before_the_refusal_of_what_is_behind_its_request(
    patient: tuple[str, int],
) -> None:
    with connected(patient) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        connection.sendall(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\nrubbish \r\n\r\n")
        # More than is thrown away of a refused connection.
        sending = threading.Thread(target=send_while_taken, args=(connection, b"x" * 10_000, 1_500_000))
        sending.start()
        received = everything(connection)
        connection.shutdown(socket.SHUT_RDWR)  # The rest is not read.
        sending.join()
    head, _, rest = received.partition(b"\r\n\r\n")
    assert b"content-length: 32000000" in head
    refusal(rest[32_000_000:], 400)


def test_what_can_not_be_parsed_leaves_no_line_in_the_log(server: Server) -> None:
    for _ in range(3):
        with connected(address_of(server)) as connection:
            connection.sendall(b"\x16\x03\x01\x02\x00\r\n\r\n")
            refusal(everything(connection), 400)
    assert "Invalid HTTP request" not in server.log.read_text(), "the line would stand there before the answer is sent"


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: " + b"9" * 5_000 + b"\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\na\x00: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n a: b\r\n\r\n",
        b"NONSENSE / HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
    ids=["tls", "length", "path", "connect", "nul", "folded", "method"],
)
def test_what_is_no_request_is_400_in_the_envelope(server: Server, sent: bytes) -> None:
    with connected(address_of(server)) as connection:
        connection.sendall(sent)
        refusal(everything(connection), 400)


def test_pipelined_requests_are_answered_one_after_the_other(patient: tuple[str, int]) -> None:
    post = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 70000\r\n\r\n" + b"x" * 70_000
    with connected(patient) as connection:
        connection.sendall(post * 5 + b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        received = everything(connection)
    assert received.count(b"HTTP/1.1 200 ") == 6
    assert received.count(b"70000") == 5
    small = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
    with connected(patient) as connection:
        connection.sendall(small * 8_000 + small.replace(b"host", b"connection: close\r\nhost"))  # 230 KB of heads
        assert everything(connection).count(b"HTTP/1.1 200 ") == 8_001


def test_the_service_answers_everybody_else_meanwhile(server: Server, http: httpx2.Client) -> None:
    with contextlib.ExitStack() as opened:
        for _ in range(200):
            opened.enter_context(connected(address_of(server))).sendall(b"GET /v1/memory_stores HTTP/1.1\r\na:")
        with connected(address_of(server)) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\na: ")
            send_while_taken(connection, b"x" * 65_536, 64_000_000)
            assert http.get("/v1/memory_stores").status_code == 200
