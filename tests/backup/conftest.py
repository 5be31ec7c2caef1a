"""Fixtures of these tests: those of the storage tests."""

from tests.storage.conftest import anyio_backend, environment, migrated, parts

__all__ = ["anyio_backend", "environment", "migrated", "parts"]
