"""A plain client of the change feed, which says when each event arrived."""

import contextlib
import hashlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from scripts.bench.errors import MeasurementError
from scripts.bench.product import HEADERS, Product

_SECONDS = 60.0


class Events:
    """Reads a store's feed in a thread. Use `events`."""

    def __init__(self, product: Product, store_id: str) -> None:
        self.live = threading.Event()
        self._arrived: dict[str, int] = {}
        url = f"/v1/memory_stores/{store_id}/changes"
        with product.caller() as caller:
            after = json.loads(caller.get(f"{url}?limit=1"))["last_seq"]
        connection = http.client.HTTPConnection("127.0.0.1", product.port, timeout=_SECONDS)
        headers = {**HEADERS, "x-api-key": product.installation.api_key, "accept": "text/event-stream"}
        connection.request("GET", f"{url}?after={after}", headers=headers)
        self._socket: socket.socket = connection.sock
        self._response = connection.getresponse()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def arrival(self, text: bytes) -> int | None:
        """When the event of a content was here, by the monotonic clock in nanoseconds."""
        return self._arrived.get(hashlib.sha256(text).hexdigest())

    def close(self) -> None:
        """End the feed."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(_SECONDS)
        self._response.close()
        self._socket.close()

    def _read(self) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):  # closed
            while line := self._response.readline():
                now = time.monotonic_ns()
                self.live.set()
                if line.startswith(b"data: "):
                    self._arrived.setdefault(json.loads(line[len(b"data: ") :])["content_sha256"], now)


@contextmanager
def events(product: Product, store_id: str) -> Iterator[Events]:
    """A live feed for the length of the block.

    Raises:
        MeasurementError: it does not begin.
    """
    feed = Events(product, store_id)
    try:
        if not feed.live.wait(_SECONDS):
            raise MeasurementError("the feed said nothing")
        yield feed
    finally:
        feed.close()
