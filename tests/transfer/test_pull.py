"""Copying a store from another server, over nothing but the vendor's routes."""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import unicodedata
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import anthropic
import httpx2
import pytest

from app.contract.errors import NotFound, Unavailable
from app.transfer.remote import Remote
from tests.support.backends import Backend
from tests.support.forks import MEMSTORE
from tests.support.servers import Server, run_cli
from tests.transfer.test_round_trips import comparable


class Relay:
    """Hands requests on to a server, after `before` has had a look; it may answer itself with (status, headers)."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.before: Any = lambda path: None
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                relay.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                instead = relay.before(self.path)
                if instead is not None:
                    status, headers = instead
                    content = json.dumps({"type": "error", "error": {"type": "x", "message": "slow down"}}).encode()
                else:
                    names = ("x-api-key", "anthropic-version", "anthropic-beta")
                    forwarded = {name: self.headers[name] for name in names if name in self.headers}
                    answer = httpx2.get(relay.target + self.path, headers=forwarded, trust_env=False)
                    status, headers, content = answer.status_code, {}, answer.content
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def relay(server: Server) -> Iterator[Relay]:
    relay = Relay(server.base_url)
    yield relay
    relay.close()


@pytest.fixture
def target(backend: Backend, tmp_path: Path) -> dict[str, str]:
    environment = backend.environment(tmp_path)
    run_cli(environment, "migrate")
    run_cli(environment, "keys", "create", "--workspace", "default")
    return environment


def fill(client: anthropic.Anthropic, store_id: str) -> None:
    memories = client.beta.memory_stores.memories
    for number in range(25):
        memories.create(store_id, path=f"/notes/{number}.md", content=f"note {number} \u00fc\r\n")
    listed = list(memories.list(store_id))
    changed = memories.update(listed[0].id, memory_store_id=store_id, content="changed")  # type: ignore[union-attr]
    memories.update(changed.id, memory_store_id=store_id, path="/elsewhere.md")
    memories.delete(listed[1].id, memory_store_id=store_id)  # type: ignore[union-attr]
    versions = client.beta.memory_stores.memory_versions
    first = [each for each in versions.list(store_id) if each.memory_id == changed.id][-1]
    versions.redact(first.id, memory_store_id=store_id)


def pull_command(relay: Relay, store_id: str) -> list[str]:
    return ["pull", store_id, "--from", relay.url, "--api-key-env", "OTHER_KEY", "--json"]


def pulled_history(environment: dict[str, str], store_id: str, directory: Path, name: str) -> Any:
    run_cli(environment, "export", store_id, "--history", "--output", str(directory / name))
    return comparable((directory / name).read_bytes(), times=True)


def test_a_store_comes_over_with_its_history(
    client: anthropic.Anthropic, server: Server, relay: Relay, target: dict[str, str], tmp_path: Path
) -> None:
    name = f"Far away é {secrets.token_hex(8)}"
    store = client.beta.memory_stores.create(name=name, description="d", metadata={"a": "b"})
    fill(client, store.id)
    limited: list[str] = []

    def limit_once(path: str) -> Any:
        if "page=" in path and not limited:
            limited.append(path)
            return 429, {"retry-after": "0"}
        return None

    relay.before = limit_once
    done = run_cli({**target, "OTHER_KEY": server.api_key}, *pull_command(relay, unicodedata.normalize("NFD", name)))
    result = json.loads(done.stdout)
    assert (result["created"], result["skipped"]) == (24, [])
    assert limited
    assert result["memory_store_id"] != store.id
    before = pulled_history(server.environment, store.id, tmp_path, "before.tar")
    after = pulled_history(target, result["memory_store_id"], tmp_path, "after.tar")
    assert after == before
    assert run_cli(target, "fsck").stdout == "clean\n"
    assert not list((Path(target["MEMSTORE_DATA_DIR"]) / "pulls").iterdir())
    assert relay.requests[0][0].startswith("/v1/memory_stores?include_archived=true&limit=100")
    for path, headers in relay.requests:
        if path.startswith("/v1/memory_stores?"):
            continue
        assert path.startswith(f"/v1/memory_stores/{store.id}")
        assert path.removeprefix(f"/v1/memory_stores/{store.id}").partition("?")[0] in (
            "", "/memory_versions", "/memories"
        )  # fmt: skip
        assert headers["anthropic-beta"] == "agent-memory-2026-07-22"
        assert "anthropic-version" in headers


def test_a_pull_that_was_killed_goes_on_where_it_was(
    client: anthropic.Anthropic, server: Server, relay: Relay, target: dict[str, str], tmp_path: Path
) -> None:
    store = client.beta.memory_stores.create(name="Far away")
    fill(client, store.id)
    reached, go_on = Event(), Event()

    def hold_the_second_page(path: str) -> Any:
        if "memory_versions" in path and "page=" in path and not go_on.is_set():
            reached.set()
            go_on.wait()
        return None

    relay.before = hold_the_second_page
    around = {name: value for name, value in os.environ.items() if not name.startswith(("MEMSTORE_", "AWS_"))}
    environment = {**target, "OTHER_KEY": server.api_key}
    with subprocess.Popen(
        [MEMSTORE, *pull_command(relay, store.id)], env={**around, **environment}, cwd=target["MEMSTORE_DATA_DIR"]
    ) as process:
        assert reached.wait(60)
        process.send_signal(signal.SIGKILL)
    go_on.set()
    asked = len(relay.requests)
    # Somebody writes meanwhile: what is new comes, too.
    client.beta.memory_stores.memories.create(store.id, path="/new.md", content="new")
    result = json.loads(run_cli(environment, *pull_command(relay, store.id)).stdout)
    assert result["created"] == 25
    again = [path for path, _ in relay.requests[asked:]]
    assert "page=" in again[0]
    assert f"/v1/memory_stores/{store.id}" not in again
    before = pulled_history(server.environment, store.id, tmp_path, "before.tar")
    assert pulled_history(target, result["memory_store_id"], tmp_path, "after.tar") == before


def test_a_server_that_refuses_is_told(server: Server, relay: Relay) -> None:
    with contextlib.closing(Remote(relay.url, server.api_key, "memstore_01" + "1" * 22)) as remote:
        with pytest.raises(NotFound, match="the server refuses: it answers 404"):
            remote.store()
        pauses: list[float] = []
        relay.before = lambda path: (503, {"retry-after": "7"})
        remote._sleep = pauses.append
        with pytest.raises(Unavailable, match="after 8 attempts: it answers 503: slow down"):
            remote.store()
        assert pauses == [7.0] * 7


def test_a_key_that_is_not_there_is_told(target: dict[str, str]) -> None:
    done = run_cli(target, "pull", "memstore_x", "--from", "http://127.0.0.1:9", "--api-key-env", "NO_KEY", check=False)
    assert done.returncode == 2
    assert "NO_KEY is not set" in done.stderr
