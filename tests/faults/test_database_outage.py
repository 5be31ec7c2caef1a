"""The database is away, hangs, or is held by others: clear refusals, nothing lost, recovery without a restart."""

import contextlib
import sqlite3
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx2

from tests.faults.load import STORES, assert_clean, load
from tests.faults.places import Place
from tests.faults.proxy import before_database
from tests.storage.outside import outside
from tests.support.backends import Backend
from tests.support.postgres import EmbeddedPostgres
from tests.support.servers import Server, serve
from tests.support.waiting import until


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
            until(lambda: state(server) == (200, 503), "the service says that it can't work")
            mortal_postgres.start()
            writing.wait_for_acknowledged(10)
        until(lambda: state(server) == (200, 200), "the service is ready again")
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
        until(lambda: state(server) == (200, 503), "the service says that it can't work")
        database.forward()
        writing.wait_for_acknowledged(5)
        until(lambda: state(server) == (200, 200), "the service is ready again")
        for writer in writing.writers:
            writer.stop()
        writing.assert_refusals_are_clear()
        writing.assert_nothing_is_lost(server)
        assert_clean(s3_place.inner)


Question = tuple[Server, str, str, dict[str, str] | None]
"""Whom to ask, the method, the path, and the body."""


def ask(questions: list[Question]) -> list[httpx2.Response]:
    """Send all requests at once, each on its own connection; the answers."""

    def send(question: Question) -> httpx2.Response:
        server, method, path, body = question
        with server.http() as http:
            http.timeout = httpx2.Timeout(60)
            return http.request(method, path, json=body)

    with ThreadPoolExecutor(len(questions)) as threads:
        return list(threads.map(send, questions))


def assert_unavailable(answers: list[httpx2.Response]) -> None:
    for answer in answers:
        assert answer.status_code in (503, 529), answer.text
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["message"]


def test_a_database_that_hangs_is_given_up_clearly_and_connections_that_died_in_silence_are_replaced(
    s3_place: Place,
) -> None:
    # Two servers at once, because each waits some seconds before it gives up.
    environment = dict(s3_place.inner)
    with (
        before_database(environment) as forgetful,
        serve(environment) as stranded,
        serve(s3_place.environment, settings=stranded.environment | s3_place.environment) as hung,
        hung.client() as client,
        hung.http() as http,
    ):
        database = s3_place.database
        assert database is not None
        store = client.beta.memory_stores.create(name="kept")
        memories = f"{STORES}/{store.id}/memories"
        memory = client.beta.memory_stores.memories.create(store.id, path="/memory.md", content="before")
        reads: list[Question] = [(stranded, "GET", memories, None)] * 16
        assert {answer.status_code for answer in ask(reads)} == {200}
        assert forgetful.connections > 1
        forgetful.strand()
        database.hang()
        answers = ask(
            [
                (hung, "GET", f"{memories}/{memory.id}", None),
                (hung, "POST", f"{memories}/{memory.id}", {"content": "meanwhile"}),
                (hung, "POST", memories, {"path": "/other.md", "content": "meanwhile"}),
                (hung, "DELETE", f"{memories}/{memory.id}", None),
                *reads,
            ]
        )
        assert_unavailable(answers[:4])
        assert state(hung) == (200, 503)
        assert_unavailable([answer for answer in answers[4:] if answer.status_code != 200])
        assert {answer.status_code for answer in ask(reads)} == {200}
        assert state(stranded) == (200, 200)

        database.forward()
        until(lambda: http.get("/readyz").status_code == 200, "the service is ready again")
        after = client.beta.memory_stores.memories.create(store.id, path="/after.md", content="after")
        assert client.beta.memory_stores.memories.retrieve(after.id, memory_store_id=store.id).content == "after"
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
            return threads.submit(ask, [(server, "POST", memories, {"path": path, "content": path})])

        with outside(environment) as view:
            view.wait_until_moved()  # or the mover stands in line, too
        with ThreadPoolExecutor(1) as threads:
            with locked(environment):
                refused = create("/refused.md")
                # Readers do not wait for writers.
                read = client.beta.memory_stores.memories.retrieve(memory.id, memory_store_id=store.id)
                assert read.content == "before"
                until(lambda: state(server) == (200, 200), "the service is ready again")
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
