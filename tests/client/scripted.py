"""A server that does what it is told, request by request: answers, hangs, breaks off."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

Act = Callable[[socket.socket], bool]
"""What becomes of one request; whether the connection stays."""


def answer(body: bytes, status: int = 200, *fields: str, kind: str = "application/json") -> Act:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", f"content-length: {len(body)}", *fields]
    return _sent("\r\n".join(lines).encode() + b"\r\n\r\n" + body, stays=True)


def broken(sent: bytes) -> Act:
    """These bytes, and then the end of the connection."""
    return _sent(sent, stays=False)


def hang(connection: socket.socket) -> bool:
    """Nothing, until the client has had enough."""
    with contextlib.suppress(OSError):
        connection.recv(1)
    return False


def events(*texts: bytes, then: Act = hang) -> Act:
    """The beginning of a stream of events."""

    def act(connection: socket.socket) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + b"".join(texts))
        return then(connection)

    return act


def _sent(data: bytes, *, stays: bool) -> Act:
    def act(connection: socket.socket) -> bool:
        connection.sendall(data)
        return stays

    return act


@dataclass
class Scripted:
    """What it was asked, and what it will do; the last act is repeated."""

    url: str
    acts: list[Act]
    requests: list[str] = field(default_factory=list)
    """Method, target and headers of each."""
    connections: int = 0

    def talk(self, connection: socket.socket) -> None:
        """One connection, until an act ends it."""
        self.connections += 1
        with connection, contextlib.suppress(OSError):
            while head := self._request(connection):
                self.requests.append(head)
                act = self.acts.pop(0) if len(self.acts) > 1 else self.acts[0]
                if not act(connection):
                    return

    @staticmethod
    def _request(connection: socket.socket) -> str:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (piece := connection.recv(65_536)):
                return ""
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        lengths = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        while len(body) < sum(lengths):
            body += connection.recv(65_536)
        return head.decode()


@contextlib.contextmanager
def scripted(*acts: Act) -> Iterator[Scripted]:
    """The server, until the end of the context."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = Scripted(f"http://127.0.0.1:{listening.getsockname()[1]}", list(acts))
        threads: list[threading.Thread] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    thread = threading.Thread(target=server.talk, args=[connection], daemon=True)
                    threads.append(thread)
                    thread.start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield server
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            accepting.join(60)
            for thread in threads:
                thread.join(60)


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    """The URL of a port at which nobody listens, now or later."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
