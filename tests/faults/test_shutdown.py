"""SIGTERM: requests under way are answered, what is held is moved, and the process ends well."""

import contextlib
import http.client
import json
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from tests.faults.load import STORES, assert_clean, load
from tests.faults.places import Place
from tests.storage.outside import Outside, digest, key
from tests.support.postgres import program
from tests.support.servers import API_VERSION, Server, serve
from tests.support.waiting import until


@contextlib.contextmanager
def writes_held(view: Outside, environment: dict[str, str], store_id: str) -> Iterator[Callable[[], None]]:
    """Every write of a store waits for a lock that somebody else holds, until the function given is called."""
    if view.rows.sqlite_file is not None:
        with contextlib.closing(sqlite3.connect(view.rows.sqlite_file, isolation_level=None, timeout=30)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield lambda: other.execute("ROLLBACK").close()
        return
    command = [program("psql"), "-X", "-q", "-A", "-t", "-d", environment["MEMSTORE_DATABASE_URL"]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        lock = f"BEGIN; SELECT 'locked' FROM memory_stores WHERE id = '{store_id}' FOR UPDATE;"
        print(lock, file=other.stdin, flush=True)
        assert other.stdout.readline() == "locked\n"
        yield other.stdin.close


def begin(server: Server, path: str, body: dict[str, str]) -> http.client.HTTPConnection:
    """Send a request without waiting for its answer."""
    connection = http.client.HTTPConnection(urlsplit(server.base_url).netloc, timeout=60)
    headers = {"x-api-key": server.api_key, "anthropic-version": API_VERSION, "content-type": "application/json"}
    connection.request("POST", path, json.dumps(body), headers)
    return connection


def printed(server: Server, text: str) -> int:
    """How often the server has printed it."""
    return server.log.read_text().count(text)


def read(connection: http.client.HTTPConnection) -> tuple[int, bytes]:
    """Status and body of the answer."""
    with connection.getresponse() as answer:
        return answer.status, answer.read()


def test_requests_under_way_are_answered_and_the_process_ends_with_0(place: Place, view: Outside) -> None:
    workers = 1 if place.s3 is None else 2
    with contextlib.ExitStack() as connections, serve(place.environment, workers=workers) as server:
        until(lambda: printed(server, "Application startup complete") == workers, "every worker has started")
        with server.client() as client:
            store = client.beta.memory_stores.create(name="kept")
        path = f"{STORES}/{store.id}/memories"
        texts = [f"under way {number}" for number in range(8)]
        with writes_held(view, place.inner, store.id) as release, server.http() as http:
            waiting = [begin(server, path, {"path": f"/{text}.md", "content": text}) for text in texts]
            for connection in waiting:
                connections.callback(connection.close)
            for _ in range(4):  # what was sent before these was received before them
                assert http.get("/healthz", headers={"connection": "close"}).status_code == 200
            server.process.send_signal(signal.SIGTERM)
            until(lambda: printed(server, "Shutting down") == workers, "every worker is shutting down")
            assert server.process.poll() is None
            release()
            answers = [read(connection) for connection in waiting]
            assert [status for status, _ in answers] == [200] * len(texts)
        assert server.stop() == 0
        assert view.staged() == 0, "what was held is moved before the end"
        assert view.blobs.all_keys() == {key(store.id, digest(text)) for text in texts}
        paths = {json.loads(body)["path"] for _, body in answers}
        kept = view.rows.execute(f"SELECT path FROM memories WHERE store_id = '{store.id}'")
        assert {row[0] for row in kept} == paths == {f"/{text}.md" for text in texts}
        assert_clean(place.inner)


def test_sigterm_under_load_loses_nothing(place: Place) -> None:
    with serve(place.environment) as server:
        with load(server) as writing:
            writing.wait_for_acknowledged(20)
            assert server.stop() == 0
        assert writing.refusals == []
        server.start()
        writing.assert_nothing_is_lost(server)
        assert_clean(place.inner)


def test_a_blob_store_that_is_away_does_not_hold_up_the_end(place: Place, view: Outside) -> None:
    with contextlib.ExitStack() as outage, serve(place.environment) as server:
        with server.client() as client:
            store = client.beta.memory_stores.create(name="kept")
            outage.enter_context(place.without_blob_store())
            memory = client.beta.memory_stores.memories.create(store.id, path="/memory.md", content="staged")
        assert server.stop() == 0
        assert view.staged() == 1
        outage.close()
        assert_clean(place.inner)
        assert view.rows.count("memories", f"id = '{memory.id}'") == 1
