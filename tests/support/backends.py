"""The back ends on which the promises are tested, and the servers they need."""

import contextlib
import os
import uuid
from functools import cached_property
from pathlib import Path
from typing import Self

from tests.support.postgres import URL_VARIABLE, EmbeddedPostgres, Postgres
from tests.support.processes import short_directory
from tests.support.s3 import S3Endpoint, ceph, moto

SQLITE_DISK = "sqlite-disk"
POSTGRES_S3 = "postgres-s3"
POSTGRES_CEPH = "postgres-ceph"
BACKENDS = (SQLITE_DISK, POSTGRES_S3)
"""Those that run everywhere."""


class Services:
    """The servers behind the back ends: each starts when it is first asked for and ends with this context."""

    def __init__(self) -> None:
        """Nothing is started yet."""
        self._running = contextlib.ExitStack()

    def _new_directory(self) -> Path:
        return self._running.enter_context(short_directory())

    @cached_property
    def postgres(self) -> Postgres:
        """PostgreSQL: the server in MEMSTORE_TEST_POSTGRES_URL, else one of our own."""
        url = os.environ.get(URL_VARIABLE)
        return self._running.enter_context(Postgres(url) if url else EmbeddedPostgres(self._new_directory()))

    @cached_property
    def moto(self) -> S3Endpoint:
        """An S3 server that runs everywhere."""
        return self._running.enter_context(moto(self._new_directory()))

    @cached_property
    def ceph(self) -> S3Endpoint:
        """A real S3 server. Ask `missing_for_ceph` first."""
        return self._running.enter_context(ceph(self._new_directory()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._running.close()


class Backend:
    """A database and a blob store; `name` is "sqlite-disk", "postgres-s3" or "postgres-ceph"."""

    def __init__(self, name: str, services: Services) -> None:
        """Nothing is started before `environment` is called."""
        self.name = name
        self._services = services

    def environment(self, directory: Path) -> dict[str, str]:
        """The MEMSTORE_* and AWS_* variables of a fresh database, data directory and bucket.

        directory: where the data directory is made; each call makes another.
        """
        data = directory / f"data-{uuid.uuid4().hex[:8]}"
        data.mkdir(mode=0o700, parents=True)
        settings = {"MEMSTORE_DATA_DIR": str(data)}
        if self.name == SQLITE_DISK:
            return settings  # and otherwise Memstore's own defaults
        s3 = self._services.ceph if self.name == POSTGRES_CEPH else self._services.moto
        return settings | {
            "MEMSTORE_DATABASE_URL": self._services.postgres.create_database(),
            # With a prefix, so that it shows where a key is made without it.
            "MEMSTORE_BLOB_URL": f"s3://{s3.create_bucket()}/memory/blobs",
            **s3.environment(),
        }

    def __repr__(self) -> str:
        return f"Backend({self.name!r})"
