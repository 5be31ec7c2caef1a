"""Fixtures of the fault tests. Each has its own servers, since it breaks them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.places import Place
from tests.faults.places import place as placed
from tests.storage.outside import Outside, outside
from tests.support.backends import POSTGRES_S3, SQLITE_DISK, Backend, Services
from tests.support.postgres import EmbeddedPostgres
from tests.support.processes import short_directory


@pytest.fixture
def place(backend: Backend, tmp_path: Path) -> Iterator[Place]:
    """Where the server of a test keeps its data, on both back ends."""
    with placed(backend, tmp_path) as found:
        yield found


@pytest.fixture
def s3_place(postgres_s3: Backend, tmp_path: Path) -> Iterator[Place]:
    """The same for a test about what only PostgreSQL or S3 can do."""
    with placed(postgres_s3, tmp_path) as found:
        yield found


@pytest.fixture
def view(place: Place) -> Iterator[Outside]:
    """The place from outside, past the proxies."""
    with outside(place.inner) as view:
        yield view


@pytest.fixture
def postgres_s3(services: Services) -> Backend:
    """The back end that has servers which can fail."""
    return Backend(POSTGRES_S3, services)


@pytest.fixture
def sqlite_disk(services: Services) -> Backend:
    """The back end that has a file which others can lock, and a disk which can be full."""
    return Backend(SQLITE_DISK, services)


@pytest.fixture(scope="session")
def mortal_postgres() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL server that tests may kill and start again, whichever the others use."""
    with short_directory() as directory, EmbeddedPostgres(directory) as server:
        yield server
