"""A server that says what a test tells it to."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

STORE = "memstore_01hostile"


def memory(number: int, path: Any, text: str = "x\n", **other: Any) -> dict[str, Any]:
    """A memory object as a server answers it. other: members that are not as they should be."""
    return {
        "type": "memory",
        "id": f"mem_{number}",
        "memory_store_id": STORE,
        "memory_version_id": f"memver_{number}",
        "path": path,
        "content": text,
        "content_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "content_size_bytes": len(text.encode()),
        "created_at": "2026-11-28T00:00:00.000000Z",
        "updated_at": "2026-11-28T00:00:00.000000Z",
        **other,
    }


def change(seq: int, number: int, path: Any, operation: str = "modified", text: str = "x\n", **other: Any) -> Any:
    """A change of the feed."""
    item = memory(number, path, text)
    del item["id"], item["content"]
    version = {"seq": seq, "memory_id": f"mem_{number}", "memory_version_id": f"memver_{number}_{seq}"}
    return {**item, **version, "operation": operation, **other}


class Hostile:
    """What it answers. Lists may be changed while it runs."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.memories: list[Any] = []
        self.changes: list[Any] = []
        """Told on the stream, once each, as soon as they are there."""
        self.heard = threading.Condition()
        self.is_ending = False

    def tell(self, *changes: Any) -> None:
        """Tell changes to who follows."""
        with self.heard:
            self.changes += changes
            self.heard.notify_all()

    def answer(self, path: str) -> Any:
        """The body for a path that is no stream."""
        if path.endswith("/snapshot"):
            head = {"type": "memory_snapshot", "seq": 1, "count": len(self.memories), "archived_at": None}
            return [head, *({**item, "content": None} for item in self.memories)]
        last = path.rpartition("/")[2]
        return next((item for item in self.memories if isinstance(item, dict) and item.get("id") == last), {})


@contextlib.contextmanager
def hostile(memories: Sequence[Any] = ()) -> Iterator[Hostile]:
    """One that runs, with these memories."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            self.send_response(200)
            self.end_headers()
            if path.endswith("/changes"):
                self._tell()
                return
            body = server.answer(path)
            lines = body if isinstance(body, list) else [body]
            self.wfile.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))

        def _tell(self) -> None:
            told = 0
            self.wfile.write(b": here\n\n")
            while not server.is_ending:
                with server.heard:
                    if len(server.changes) == told:
                        server.heard.wait(5)
                    news, told = server.changes[told:], len(server.changes)
                try:
                    self.wfile.write(b": here\n\n")
                    for item in news:
                        self.wfile.write(b"event: change\ndata: " + json.dumps(item).encode() + b"\n\n")
                except OSError:
                    return

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        server = Hostile(f"http://127.0.0.1:{listener.server_address[1]}")
        server.memories += memories
        thread = threading.Thread(target=listener.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            with server.heard:
                server.is_ending = True
                server.heard.notify_all()
            listener.shutdown()
            thread.join()
