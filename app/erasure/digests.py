"""Salted digests of IDs: they prove to a reader who knows an ID that it was erased, and name it to nobody else."""

import hashlib
import secrets
from collections.abc import Iterable

STORE = "store"
MEMORY = "memory"
VERSION = "version"
WITHIN = "within"
TEXT = "text"
"""The kinds: a store that was erased whole, a memory, a version, a store that lost memories and stayed, and a session,
an agent, an environment, a key or a store that lost texts around the memories."""

KINDS = (STORE, MEMORY, VERSION, WITHIN, TEXT)

SALT_BYTES = 32


def new_salt() -> bytes:
    """A salt for one erasure."""
    return secrets.token_bytes(SALT_BYTES)


def digest(salt: bytes, identifier: str) -> str:
    """SHA-256 over the salt's bytes and the ID in ASCII, in hex."""
    return hashlib.sha256(salt + identifier.encode()).hexdigest()


def digests(salt: bytes, identifiers: Iterable[str]) -> list[str]:
    """Those of many, each once."""
    return sorted({digest(salt, identifier) for identifier in identifiers})
