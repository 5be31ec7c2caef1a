"""The database is away, hangs, or is held by others: clear refusals, nothing lost, recovery without a restart."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx2

from tests.faults.load import STORES, assert_clean, load
from tests.faults.places import Place
from tests.storage.outside import outside, until
from tests.support.backends import Backend
from tests.support.postgres import EmbeddedPostgres
from tests.support.servers import Server, serve


def state(server: Server) -> tuple[int, int]:
    """What /healthz and /readyz answer."""
    with server.http() as http:
        return http.get("/healthz").status_code, http.get("/readyz").status_code


def test_postgres_killed_under_load_loses_nothing_and_the_service_recovers_by_itself(
    s3_place: Place, mortal_postgres: EmbeddedPostgres
) -> None:
    environment = s3_place.inner | {"MEMSTORE_DATABASE_URL": mortal_postgres.create_database()}
    with serve(environment) as server, load(server) as writing:
        writing.wait_for_acknowledged(10)
        for end in (mortal_postgres.kill, mortal_postgres.stop):
            end()
            writing.wait_for_trouble()
            assert state(server) == (200, 503)
            mortal_postgres.start()
            writing.wait_for_acknowledged(10)
        assert state(server) == (200, 200)
        for writer in writing.writers:
            writer.stop()
        writing.assert_refusals_are_clear()
        assert writing.refusals
        writing.assert_nothing_is_lost(server)
        with outside(environment) as view:
            view.rows.execute("UPDATE staged_contents SET staged_at = 0")
            view.wait_until_moved()
        assert_clean(environment)
        assert sum(writer.broken for writer in writing.writers) == 0, "the server itself was there all the time"


def test_a_database_that_refuses_or_cuts_connections_is_clear_refusals_and_nothing_lost(s3_place: Place) -> None:
    database = s3_place.database
    assert database is not None
    with serve(s3_place.environment) as server, load(server) as writing:
        writing.wait_for_acknowledged(5)
        for _ in range(5):
            database.cut()
            writing.wait_for_acknowledged(3)
        database.refuse()
        writing.wait_for_trouble()
        assert state(server) == (200, 503)
        database.forward()
        writing.wait_for_acknowledged(5)
        assert state(server) == (200, 200)
        for writer in writing.writers:
            writer.stop()
        writing.assert_refusals_are_clear()
        writing.assert_nothing_is_lost(server)
        assert_clean(s3_place.inner)


def ask(server: Server, requests: list[tuple[str, str, dict[str, str] | None]]) -> list[httpx2.Response]:
    """Send all requests at once, each on its own connection; the answers."""
    answers: list[httpx2.Response | None] = [None] * len(requests)

    def send(number: int) -> None:
        method, path, body = requests[number]
        with server.http() as http:
            http.timeout = httpx2.Timeout(60)
            answers[number] = http.request(method, path, json=body)

    threads = [threading.Thread(target=send, args=(number,), daemon=True) for number in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    given = [answer for answer in answers if answer is not None]
    assert len(given) == len(requests), "each request is answered"
    return given


def assert_unavailable(answers: list[httpx2.Response]) -> None:
    for answer in answers:
        assert answer.status_code in (503, 529), answer.text
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["message"]


def test_a_database_that_hangs_is_given_up_with_a_clear_refusal_and_used_again_when_it_answers(
    s3_place: Place,
) -> None:
    database = s3_place.database
    assert database is not None
    with serve(s3_place.environment) as server, server.client() as client:
        store = client.beta.memory_stores.create(name="kept")
        memories = f"{STORES}/{store.id}/memories"
        memory = client.beta.memory_stores.memories.create(store.id, path="/memory.md", content="before")
        database.hang()
        refused = ask(
            server,
            [
                ("GET", f"{memories}/{memory.id}", None),
                ("POST", f"{memories}/{memory.id}", {"content": "meanwhile"}),
                ("POST", memories, {"path": "/other.md", "content": "meanwhile"}),
                ("DELETE", f"{memories}/{memory.id}", None),
            ],
        )
        assert_unavailable(refused)
        assert state(server) == (200, 503)
        database.forward()
        with server.http() as http:
            until(lambda: http.get("/readyz").status_code == 200, "the service is ready again")
        after = client.beta.memory_stores.memories.create(store.id, path="/after.md", content="after")
        assert client.beta.memory_stores.memories.retrieve(after.id, memory_store_id=store.id).content == "after"
        assert_clean(s3_place.inner)


def test_connections_that_died_without_a_word_do_not_stop_the_service_for_good(s3_place: Place) -> None:
    database = s3_place.database
    assert database is not None
    with serve(s3_place.environment) as server, server.client(max_retries=0) as client:
        store = client.beta.memory_stores.create(name="kept")
        memories = f"{STORES}/{store.id}/memories"
        ask(server, [("GET", memories, None)] * 16)  # so that there are several connections
        database.strand()
        answers = ask(server, [("GET", memories, None)] * 16)
        assert_unavailable([answer for answer in answers if answer.status_code != 200])
        assert state(server) == (200, 200)
        assert {answer.status_code for answer in ask(server, [("GET", memories, None)] * 16)} == {200}
        client.beta.memory_stores.memories.create(store.id, path="/after.md", content="after")
        assert_clean(s3_place.inner)


@contextlib.contextmanager
def locked(environment: dict[str, str]) -> Iterator[None]:
    """Another program writes to the SQLite file, and takes its time."""
    file = Path(environment["MEMSTORE_DATA_DIR"]) / "memstore.db"
    with contextlib.closing(sqlite3.connect(file, isolation_level=None, timeout=30)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def test_sqlite_held_by_another_program_is_waited_for_and_then_a_clear_refusal(
    sqlite_disk: Backend, tmp_path: Path
) -> None:
    environment = sqlite_disk.environment(tmp_path)
    with serve(environment) as server, server.client() as client:
        store = client.beta.memory_stores.create(name="kept")
        memories = f"{STORES}/{store.id}/memories"
        memory = client.beta.memory_stores.memories.create(store.id, path="/memory.md", content="before")

        def create(path: str) -> Future[list[httpx2.Response]]:
            return threads.submit(ask, server, [("POST", memories, {"path": path, "content": path})])

        with outside(environment) as view:
            view.wait_until_moved()  # or the mover stands in line, too
        with ThreadPoolExecutor(1) as threads:
            with locked(environment):
                refused = create("/refused.md")
                # Readers do not wait for writers.
                read = client.beta.memory_stores.memories.retrieve(memory.id, memory_store_id=store.id)
                assert read.content == "before"
                assert state(server) == (200, 200)
                (answer,) = refused.result(timeout=60)
            assert answer.status_code == 529
            assert_unavailable([answer])

            with locked(environment):
                waiting = create("/waited.md")
                assert state(server) == (200, 200)  # by now the request is under way
            (answer,) = waiting.result(timeout=60)
            assert answer.status_code == 200
        listed = client.beta.memory_stores.memories.list(store.id).data
        assert [item.path for item in listed] == ["/memory.md", "/waited.md"]
        assert_clean(environment)
