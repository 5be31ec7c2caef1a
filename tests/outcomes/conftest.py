"""Fixtures of these tests: an opened service on both back ends, whose commits can get lost."""

from tests.storage.conftest import anyio_backend, environment, migrated

__all__ = ["anyio_backend", "environment", "migrated"]
