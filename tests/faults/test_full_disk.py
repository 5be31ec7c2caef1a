"""A full disk: writes are refused clearly, reads go on, nothing is lost, and room is all that is needed."""

import contextlib
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from tests.faults.load import STORES, assert_clean, load
from tests.faults.places import Place
from tests.faults.small_disks import SmallDisk, no_file_may_grow, small_disk
from tests.storage.outside import outside
from tests.support.backends import Backend
from tests.support.postgres import ROOT_RUNS_AS, EmbeddedPostgres
from tests.support.servers import Server, serve
from tests.support.waiting import until


def assert_survives_a_full_disk(
    environment: dict[str, str], full: Callable[[Server], AbstractContextManager[object]]
) -> None:
    with (
        outside(environment) as view,
        serve(environment, settings={"MEMSTORE_CACHE_BYTES": "0"}) as server,
        server.client(max_retries=0) as client,
        server.http() as http,
    ):
        memories = client.beta.memory_stores.memories
        store = client.beta.memory_stores.create(name="kept")
        memory = memories.create(store.id, path="/memory.md", content="before")
        view.wait_until_moved()
        with load(server) as writing:
            writing.wait_for_acknowledged(10)
            for _ in range(2):
                with full(server):
                    writing.wait_for_trouble()
                    assert memories.retrieve(memory.id, memory_store_id=store.id).content == "before"
                    assert len(memories.list(store.id).data) == 1
                    assert http.get("/healthz").status_code == 200
                writing.wait_for_acknowledged(10)
        assert writing.refusals
        writing.assert_refusals_are_clear()
        assert sum(writer.broken for writer in writing.writers) == 0
        writing.assert_nothing_is_lost(server)
        view.rows.execute("UPDATE staged_contents SET staged_at = 0")  # old enough for the sweeper
        view.wait_until_moved()
        writing.assert_nothing_is_lost(server)
        assert_clean(environment)


def filled(disk: SmallDisk) -> Callable[[Server], AbstractContextManager[object]]:
    @contextlib.contextmanager
    def full(server: Server):  # type: ignore[no-untyped-def]
        disk.fill()
        try:
            yield
        finally:
            disk.free()

    return full


def test_a_full_disk_under_sqlite_and_the_blobs_loses_nothing(sqlite_disk: Backend) -> None:
    with small_disk("32m") as disk:
        environment = sqlite_disk.environment(disk.directory)
        assert_survives_a_full_disk(environment, filled(disk))


def test_files_of_sqlite_and_blobs_that_can_not_grow_lose_nothing(sqlite_disk: Backend, tmp_path: Path) -> None:
    assert_survives_a_full_disk(sqlite_disk.environment(tmp_path), no_file_may_grow)


def test_a_full_disk_under_postgres_loses_nothing(s3_place: Place, mortal_postgres: EmbeddedPostgres) -> None:
    with small_disk("16m") as disk:
        tables = disk.directory / "tables"
        tables.mkdir()
        shutil.chown(tables, ROOT_RUNS_AS)
        url = mortal_postgres.create_database()
        name = url.partition("?")[0].rpartition("/")[2]
        mortal_postgres.execute(f"CREATE TABLESPACE small LOCATION '{tables}'")
        mortal_postgres.execute(f"ALTER DATABASE {name} SET default_tablespace = small")
        try:
            assert_survives_a_full_disk(s3_place.inner | {"MEMSTORE_DATABASE_URL": url}, filled(disk))
        finally:
            mortal_postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")
            mortal_postgres.execute("DROP TABLESPACE small")


def test_a_full_disk_under_the_blobs_alone_delays_only_the_move(sqlite_disk: Backend, tmp_path: Path) -> None:
    with small_disk("4m") as disk:
        environment = sqlite_disk.environment(tmp_path) | {"MEMSTORE_BLOB_URL": f"file://{disk.directory}/blobs"}
        with (
            outside(environment) as view,
            serve(environment, settings={"MEMSTORE_CACHE_BYTES": "0"}) as server,
            server.http() as http,
        ):
            disk.fill()
            with load(server) as writing:
                writing.wait_for_acknowledged(20)
            assert writing.refusals == []
            assert view.staged() > 0
            writing.assert_nothing_is_lost(server)
            disk.free()
            view.rows.execute("UPDATE staged_contents SET staged_at = 0")  # old enough for the sweeper
            view.wait_until_moved()
            writing.assert_nothing_is_lost(server)
            assert http.get(STORES).status_code == 200
            assert_clean(environment)


def test_a_disk_that_was_full_when_the_service_first_asked_whose_the_blobs_are_is_well_again_with_room(
    sqlite_disk: Backend,
) -> None:
    with small_disk("6m") as disk:
        environment = sqlite_disk.environment(disk.directory)
        with serve(environment, settings={"MEMSTORE_BLOB_URL": f"file://{disk.directory}/blobs"}) as server:
            mark = disk.directory / "blobs" / ".memstore-installation"
            with server.http() as http:
                mark.unlink()  # The start asked already.
                disk.fill()
                until(lambda: http.get("/readyz").status_code == 503, "the service says that it can't store")
                assert not mark.exists() or len(mark.read_text()) == 32
                assert [file.name for file in mark.parent.iterdir() if file.name.startswith("..")] == []
                disk.free()
                until(lambda: http.get("/readyz").status_code == 200, "the service is ready")
            assert_clean(server.environment)
            server.cli("sweep")
            assert len(mark.read_text()) == 32
