"""Fixtures of the storage tests: the opened parts of the service, on both back ends."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.storage.rows import migrations
from app.storage.rows.tables import audit_entries, audit_head, installation, metadata
from tests.storage.outside import Rows
from tests.storage.parts import Parts, opened, options
from tests.support.backends import SQLITE_DISK, Backend

KEPT = (installation, audit_entries, audit_head)
"""The audit log can't be emptied, and no other table refers to it."""


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The event loop that tests which are coroutines run in."""
    return "asyncio"


@pytest.fixture(scope="session")
def migrated(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose database has the schema; emptied for each test."""
    environment = backend.environment(tmp_path_factory.mktemp("storage"))
    migrations.upgrade(options(environment).database_url)
    return environment


@pytest.fixture
def environment(
    backend: Backend, migrated: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """The settings of an empty, migrated service; the AWS variables are this process's too."""
    emptied = (table.name for table in reversed(metadata.sorted_tables) if table not in KEPT)
    Rows(migrated).execute_all(f"DELETE FROM {name}" for name in emptied)
    for name, value in migrated.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    if backend.name == SQLITE_DISK:
        (tmp_path / "blobs").mkdir(mode=0o700)
        return migrated | {"MEMSTORE_BLOB_URL": f"file://{tmp_path / 'blobs'}"}
    return migrated | {"MEMSTORE_BLOB_URL": f"{migrated['MEMSTORE_BLOB_URL']}/{tmp_path.name}"}


@pytest.fixture
async def parts(environment: dict[str, str]) -> AsyncIterator[Parts]:
    """The storage, opened in the test's own event loop."""
    async with opened(environment) as parts:
        yield parts
