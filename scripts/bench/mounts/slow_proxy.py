"""A TCP proxy that makes a server slow: what the server says arrives so much later.

Run as `python -m scripts.bench.mounts.slow_proxy PORT TARGET_PORT SECONDS`. Threads and `sleep` instead of an event
loop, whose timers are as coarse as what is measured through it.
"""

import contextlib
import queue
import socket
import sys
import threading
import time

_CHUNK = 65_536


def _pump(source: socket.socket, target: socket.socket, seconds: float) -> None:
    """Pass on what comes, each piece so long after it came, until one of the two ends; then end both."""
    pieces: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
    taker = threading.Thread(target=_take, args=(source, pieces, seconds), daemon=True)
    taker.start()
    with contextlib.suppress(OSError):
        while (arrived := pieces.get())[1]:
            time.sleep(max(0.0, arrived[0] - time.monotonic()))
            target.sendall(arrived[1])
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
    taker.join()


def _take(source: socket.socket, pieces: "queue.SimpleQueue[tuple[float, bytes]]", seconds: float) -> None:
    """Queue what comes with the time when it is due; the empty piece is the end."""
    piece = b"?"
    while piece:
        try:
            piece = source.recv(_CHUNK)
        except OSError:
            piece = b""
        pieces.put((time.monotonic() + seconds, piece))


def _connect(client: socket.socket, target_port: int, seconds: float) -> None:
    with client, socket.create_connection(("127.0.0.1", target_port)) as server:
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        there = threading.Thread(target=_pump, args=(client, server, 0.0), daemon=True)
        there.start()
        _pump(server, client, seconds)
        there.join()


def main(port: int, target_port: int, seconds: float) -> None:
    """Serve until the process is ended."""
    with socket.create_server(("127.0.0.1", port), backlog=128) as listener:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_connect, args=(client, target_port, seconds), daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
