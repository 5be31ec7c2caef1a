"""Fixtures of the migration tests: a fresh database of each kind."""

from pathlib import Path

import pytest

from tests.support.backends import Backend


@pytest.fixture
def environment(backend: Backend, tmp_path: Path) -> dict[str, str]:
    """The settings of a service whose database is empty."""
    return backend.environment(tmp_path)


@pytest.fixture
def database_url(environment: dict[str, str]) -> str:
    """The URL of that database."""
    return environment.get(
        "MEMSTORE_DATABASE_URL", f"sqlite:///{Path(environment['MEMSTORE_DATA_DIR']) / 'memstore.db'}"
    )
