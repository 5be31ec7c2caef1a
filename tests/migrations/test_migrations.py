"""The migrations make the schema that the program needs, from nothing and from a database in use."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.storage.rows import migrations
from app.storage.rows.tables import metadata
from tests.support.backends import SQLITE_DISK, Backend
from tests.support.servers import run_cli, serve

T = TypeVar("T")


def with_connection(url: str, work: Callable[[Connection], T]) -> T:
    """Run `work` on a connection that is not the product's own."""
    if url.startswith("sqlite"):
        engine = create_engine(url, poolclass=NullPool)
        with engine.begin() as connection:
            return work(connection)

    async def run() -> T:
        asynchronous = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"), poolclass=NullPool)
        async with asynchronous.begin() as connection:
            return await connection.run_sync(work)

    return asyncio.run(run())


def tables(url: str) -> set[str]:
    """The names of the database's tables."""
    return with_connection(url, lambda connection: set(inspect(connection).get_table_names()))


def differences(url: str) -> list[Any]:
    """What Alembic would change to make the database as `app.storage.rows.tables` says."""

    def compare(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, metadata))

    return with_connection(url, compare)


def test_the_migrated_schema_is_the_one_the_tables_describe(database_url: str) -> None:
    migrations.upgrade(database_url)
    assert differences(database_url) == []


def test_the_newest_revision_is_told_by_the_files_names_as_alembic_tells_it() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parents[3] / "alembic"))
    assert migrations.head_revision() == scripts.get_current_head()


def test_the_comparison_sees_a_difference(database_url: str) -> None:
    migrations.upgrade(database_url)
    with_connection(database_url, lambda connection: connection.execute(text("DROP INDEX memory_versions_memory_idx")))
    assert [change[0] for change in differences(database_url)] == ["add_index"]


def test_paths_compare_as_bytes(database_url: str) -> None:
    migrations.upgrade(database_url)

    def smallest(connection: Connection) -> list[str]:
        for name in ("a", "B", "á", "_", "Z", "b"):
            connection.execute(
                text("INSERT INTO workspaces (id, name, created_at, store_count) VALUES (:name, :name, 0, 0)"),
                {"name": name},
            )
        return [row[0] for row in connection.execute(text("SELECT name FROM workspaces ORDER BY name"))]

    assert with_connection(database_url, smallest) == sorted(("a", "B", "á", "_", "Z", "b"), key=str.encode)


def test_down_to_nothing_and_up_again(database_url: str) -> None:
    migrations.upgrade(database_url)
    assert set(metadata.tables) < tables(database_url)
    migrations.downgrade(database_url, "base")
    assert tables(database_url) <= {"alembic_version"}
    migrations.upgrade(database_url)
    assert differences(database_url) == []


def test_migrating_a_database_in_use_again_changes_nothing(environment: dict[str, str], database_url: str) -> None:
    with serve(environment) as server:
        stores = server.client().beta.memory_stores
        store = stores.create(name="Kept", metadata={"for": "tests"})
        memory = stores.memories.create(store.id, path="/kept.md", content="kept", view="full")
    run_cli(environment, "migrate")
    assert differences(database_url) == []
    with serve(environment) as server:
        stores = server.client().beta.memory_stores
        assert stores.retrieve(store.id) == store
        assert stores.memories.retrieve(memory.id, memory_store_id=store.id) == memory


def test_each_installation_has_its_own_id(backend: Backend, environment: dict[str, str], database_url: str) -> None:
    migrations.upgrade(database_url)

    def ids(connection: Connection) -> list[str]:
        return [row[0] for row in connection.execute(text("SELECT id FROM installation"))]

    (first,) = with_connection(database_url, ids)
    migrations.downgrade(database_url, "base")
    migrations.upgrade(database_url)
    (second,) = with_connection(database_url, ids)
    assert first != second


def test_two_migrations_at_once_are_one(environment: dict[str, str], database_url: str) -> None:
    with ThreadPoolExecutor(3) as threads:
        commands = [threads.submit(run_cli, environment, "migrate") for _ in range(3)]
        assert [command.result().returncode for command in commands] == [0, 0, 0]
    assert differences(database_url) == []


def test_a_database_without_the_schema_is_refused_with_what_to_do(
    backend: Backend, environment: dict[str, str], database_url: str
) -> None:
    if backend.name == SQLITE_DISK:
        # An embedded database of an older version is migrated by the command itself.
        migrations.upgrade(database_url, "0001")
        assert run_cli(environment, "keys", "list").returncode == 0
        return
    for command in (("serve", "--port", "0"), ("keys", "list"), ("fsck",), ("sweep",)):
        refused = run_cli(environment, *command, check=False)
        assert refused.returncode == 2
        assert "run 'memstore migrate' first" in refused.stderr


@pytest.mark.parametrize("command", ["serve", "fsck"])
def test_a_schema_of_another_revision_is_refused(
    command: str, backend: Backend, environment: dict[str, str], database_url: str
) -> None:
    migrations.upgrade(database_url)
    with_connection(
        database_url, lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    )
    refused = run_cli(environment, command, check=False)
    assert refused.returncode != 0
    assert "9999" in refused.stderr
    assert "Traceback" not in refused.stderr
