"""A body over the limit is refused before it is read into memory (issue: 413; part 1.8).

The SDK can't send these requests, and an HTTP library would insist on sending the whole body: plain sockets.
"""

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from anthropic.resources.beta.memory_stores import MemoryStores

from tests.contract.shapes import REQUEST_ID, check_refusal, is_id
from tests.support.servers import Server

pytestmark = pytest.mark.any_backend

STORES = "/v1/memory_stores"
LIMIT_BYTES = 1_048_576
ANSWER_SECONDS = 30


@pytest.fixture
def connection(server: Server) -> Iterator[socket.socket]:
    address = urlsplit(server.base_url)
    assert address.hostname is not None
    assert address.port is not None
    with socket.create_connection((address.hostname, address.port), timeout=ANSWER_SECONDS) as connection:
        yield connection


def _head(server: Server, *headers: str) -> bytes:
    lines = [
        f"POST {STORES} HTTP/1.1",
        f"host: {urlsplit(server.base_url).netloc}",
        f"x-api-key: {server.api_key}",
        "anthropic-version: 2023-06-01",
        "content-type: application/json",
        *headers,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _read_refusal(connection: socket.socket) -> dict[str, Any]:
    """Read one answer and the end of the connection; assert that it is a 413 in the envelope."""
    received = b""
    while chunk := connection.recv(65_536):
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    status_line, *headers = head.decode("latin-1").lower().split("\r\n")
    assert status_line.split(" ")[1] == "413"
    answer: dict[str, Any] = json.loads(body)
    assert answer["type"] == "error"
    assert answer["error"]["type"] == "request_too_large"
    assert is_id(answer["request_id"], REQUEST_ID)
    assert any(line.startswith("request-id: ") for line in headers)
    return answer


@pytest.mark.parametrize("declared", [LIMIT_BYTES + 1, 10**12])
def test_a_declared_length_over_the_limit_is_413_before_any_of_it_is_sent(
    server: Server, connection: socket.socket, declared: int
) -> None:
    connection.sendall(_head(server, f"content-length: {declared}"))
    _read_refusal(connection)


def test_a_chunked_body_is_413_as_soon_as_it_passes_the_limit(server: Server, connection: socket.socket) -> None:
    connection.sendall(_head(server, "transfer-encoding: chunked"))
    chunk = b" " * 65_536
    for _ in range(LIMIT_BYTES // len(chunk)):
        connection.sendall(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
    connection.sendall(b"1\r\n \r\n")  # one byte more, and no last chunk
    _read_refusal(connection)


def test_a_body_at_the_limit_is_read(http: httpx2.Client, stores: MemoryStores) -> None:
    body = b'{"name": "padded"}'.ljust(LIMIT_BYTES)
    headers = {"content-type": "application/json"}
    response = http.post(STORES, content=body, headers=headers)
    assert response.status_code == 200
    stores.delete(response.json()["id"])

    chunks = iter([body[: LIMIT_BYTES // 2], body[LIMIT_BYTES // 2 :]])
    response = http.post(STORES, content=chunks, headers=headers)
    assert response.status_code == 200
    stores.delete(response.json()["id"])


def test_the_server_answers_the_next_connection(server: Server, http: httpx2.Client) -> None:
    address = urlsplit(server.base_url)
    with socket.create_connection((address.hostname, address.port or 0), timeout=ANSWER_SECONDS) as one:
        one.sendall(_head(server, f"content-length: {10**12}"))
        _read_refusal(one)
    check_refusal(http.get(f"{STORES}/memstore_nowhere"), 404)


def test_a_body_over_the_limit_of_a_memory_but_not_of_a_request_is_400(
    http: httpx2.Client, stores: MemoryStores
) -> None:
    store = stores.create(name="x")
    body = {"path": "/a", "content": "x" * 500_000}
    check_refusal(http.post(f"{STORES}/{store.id}/memories", json=body), 400)
    stores.delete(store.id)
