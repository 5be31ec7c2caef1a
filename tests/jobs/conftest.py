"""Fixtures of the job tests: the storage's, on both back ends."""

from tests.storage.conftest import anyio_backend, environment, migrated, parts

__all__ = ["anyio_backend", "environment", "migrated", "parts"]
