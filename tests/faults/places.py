"""Where a server keeps its data, with the means to take parts of it away and bring them back."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.proxy import Proxy, before_database, before_s3
from tests.support.backends import SQLITE_DISK, Backend


@dataclass
class Place:
    """An environment for a server. The proxies stand before PostgreSQL and S3; SQLite and the disk have none."""

    environment: dict[str, str]
    inner: dict[str, str]
    """The same without proxies, for whoever looks from outside."""
    database: Proxy | None
    s3: Proxy | None

    @contextlib.contextmanager
    def without_blob_store(self) -> Iterator[None]:
        """S3 refuses connections; or the blobs' directory is not there, as when its disk is not mounted."""
        if self.s3 is not None:
            self.s3.refuse()
            try:
                yield
            finally:
                self.s3.forward()
            return
        directory = Path(self.environment["MEMSTORE_DATA_DIR"]) / "blobs"
        away = directory.with_name("blobs-away")
        directory.rename(away)
        directory.touch()  # so that nobody makes it anew
        try:
            yield
        finally:
            os.unlink(directory)
            away.rename(directory)


@contextlib.contextmanager
def place(backend: Backend, directory: Path) -> Iterator[Place]:
    """A fresh one. Meanwhile the AWS variables are this process's too, for whoever opens the storage in it."""
    inner = backend.environment(directory)
    with pytest.MonkeyPatch.context() as variables:
        for name, value in inner.items():
            if name.startswith("AWS_"):
                variables.setenv(name, value)
        if backend.name == SQLITE_DISK:
            yield Place(dict(inner), inner, None, None)
            return
        environment = dict(inner)
        with before_database(environment) as database, before_s3(environment) as s3:
            yield Place(environment, inner, database, s3)
