"""An S3 server that lacks what some do: a door in front of a real one, which refuses certain requests."""

import contextlib
import http.client
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qsl, urlsplit

from tests.support.s3 import S3Endpoint

_REFUSAL = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>planted by a test</Message></Error>"


@contextlib.contextmanager
def without(endpoint: S3Endpoint, queries: frozenset[str], status: int, code: str) -> Iterator[S3Endpoint]:
    """The server without the requests that have one of these words in their query (`delete`, `versions`)."""
    target = urlsplit(endpoint.url)

    class Door(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            words = {name for name, _ in parse_qsl(urlsplit(self.path).query, keep_blank_values=True)}
            if words & queries:
                self._send(status, [("content-type", "application/xml")], _REFUSAL.format(code=code).encode())
                return
            connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=30)
            with contextlib.closing(connection):
                connection.request(self.command, self.path, body or None, dict(self.headers))
                answer = connection.getresponse()
                self._send(answer.status, answer.getheaders(), answer.read())

        def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                    self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815 - the base class's names

    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield replace(endpoint, url=f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
