"""Programs without a key, as a process of its own: `python -m scripts.bench.strangers PORT loud|silent`.

500 connections stay open. Loud ones send half a head and open again when they are closed, and one more connection after
the other sends a head of 64 MB, 20 a second at most, until nobody reads on. Silent ones only connect. It ends with its
standard input.
"""

import contextlib
import selectors
import socket
import sys
import threading
import time

CONNECTIONS = 500
HEADS_PER_SECOND = 20
HEAD_BYTES = 64_000_000
_PIECE = b"x" * 65_536


def _connect(port: int, *, is_loud: bool) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    if is_loud:
        connection.sendall(b"GET /v1/memory_stores HTTP/1.1\r\nhost: x\r\na: ")
    return connection


def hold_open(port: int, *, is_loud: bool) -> None:
    """Keep the connections open."""
    waiting = selectors.DefaultSelector()
    for _ in range(CONNECTIONS):
        waiting.register(_connect(port, is_loud=is_loud), selectors.EVENT_READ)
    print("open", flush=True)
    while True:
        for key, _ in waiting.select():
            connection: socket.socket = key.fileobj  # type: ignore[assignment]
            with contextlib.suppress(ConnectionError):
                if connection.recv(65_536):
                    continue
            waiting.unregister(connection)
            connection.close()
            waiting.register(_connect(port, is_loud=is_loud), selectors.EVENT_READ)


def send_heads(port: int) -> None:
    """One large head after the other."""
    while True:
        next_one = time.monotonic() + 1 / HEADS_PER_SECOND
        with contextlib.suppress(ConnectionError), _connect(port, is_loud=True) as connection:
            for _ in range(HEAD_BYTES // len(_PIECE)):
                connection.sendall(_PIECE)
        time.sleep(max(0.0, next_one - time.monotonic()))


def main() -> None:
    """Until standard input ends."""
    port, is_loud = int(sys.argv[1]), sys.argv[2] == "loud"
    threading.Thread(target=hold_open, args=[port], kwargs={"is_loud": is_loud}, daemon=True).start()
    if is_loud:
        threading.Thread(target=send_heads, args=[port], daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
