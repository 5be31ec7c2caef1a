"""However a server answers, a mount takes no more memory than the documentation says; the kernel counts."""

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.mount.hostile import memory

ROOT = Path(__file__).parents[2]
MEBI = 1 << 20
BOUND_BYTES = 64 * MEBI
"""What a mount may take above its own start for an answer that it refuses; docs/reference/limits.md says so."""

Answers = Callable[[str], Iterator[bytes]]
"""The pieces of a whole answer, status line and all, for a path."""


def head(*fields: str) -> bytes:
    return "\r\n".join(("HTTP/1.1 200 OK", *fields, "", "")).encode()


def line(item: Any) -> bytes:
    return json.dumps(item).encode() + b"\n"


def snapshot(count: int) -> bytes:
    return line({"type": "memory_snapshot", "seq": 1, "count": count, "archived_at": None})


def endless_header(path: str) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    while True:
        yield b"x-more: " + b"x" * 4_000 + b"\r\n"


def endless_header_line(path: str) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nx-more: "
    while True:
        yield b"x" * 65_536


def endless_body(path: str) -> Iterator[bytes]:
    yield head()
    while True:
        yield b" " * 65_536


def endless_chunk(path: str) -> Iterator[bytes]:
    yield head("transfer-encoding: chunked") + b"f" * 15 + b"\r\n"
    while True:
        yield b"[" * 65_536


def endless_chunk_size(path: str) -> Iterator[bytes]:
    yield head("transfer-encoding: chunked")
    while True:
        yield b"0" * 65_536


def deep(path: str) -> Iterator[bytes]:
    yield head() + b'{"data": ' + b"[" * 900_000 + b"\n"


def many_values(path: str) -> Iterator[bytes]:
    """Each byte of it takes 24 of memory, once it is read as JSON."""
    body = b'{"data": [' + b"{}," * 5_500_000 + b"{}]}"
    if path.endswith("/snapshot"):
        yield b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}"
    elif path.endswith("/memories"):
        yield head(f"content-length: {len(body)}") + body
    else:
        yield head("content-length: 2") + b"{}"


def many_strings(path: str) -> Iterator[bytes]:
    body = b'{"data": [' + b'"ab",' * 3_200_000 + b"{}]}"
    for piece in many_values(path):
        yield piece if b"[{}," not in piece else head(f"content-length: {len(body)}") + body


def long_paths(path: str) -> Iterator[bytes]:
    """Memories that can't be shown are left out and named: their paths are not kept."""
    yield head() + snapshot(80)
    for number in range(80):
        yield line(memory(number, "/" + "a" * 900_000))


HOSTILE: dict[str, tuple[Answers, str]] = {
    "a header without an end": (endless_header, "does not answer"),
    "a line of a header without an end": (endless_header_line, "does not answer"),
    "an answer without an end": (endless_body, "does not answer"),
    "a chunk without an end": (endless_chunk, "does not answer"),
    "the size of a chunk without an end": (endless_chunk_size, "does not answer"),
    "lists in lists": (deep, "does not answer"),
    "millions of values": (many_values, "does not answer"),
    "millions of strings": (many_strings, "does not answer"),
    "long paths in a snapshot": (long_paths, "0 memories, 80 unshowable"),
}
"""What the server does, and what is said of the store."""


@contextlib.contextmanager
def serving(answers: Answers) -> Iterator[str]:
    """A server that answers so; its URL. Each answer ends when its reader does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                for piece in answers(urlsplit(self.path).path):
                    self.wfile.write(piece)

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        thread = threading.Thread(target=listener.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.server_address[1]}"
        finally:
            listener.shutdown()
            thread.join()


def test_no_answer_takes_more_memory_than_documented(tmp_path: Path) -> None:
    with contextlib.ExitStack() as servers:
        urls = [servers.enter_context(serving(answers)) for answers, _ in HOSTILE.values()]
        done = subprocess.run(
            [sys.executable, "-m", "tests.mount.measured", tmp_path, *urls],
            cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True,
            timeout=300,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for (what, (_, said)), found in zip(HOSTILE.items(), json.loads(done.stdout), strict=True):
        assert said in found["store"], (what, found)
        assert found["grown"] <= BOUND_BYTES, (what, found)
