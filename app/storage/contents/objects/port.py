"""The port of the blob store: whole objects under paths, on whatever keeps them.

| | `disk` | `s3` | `anywhere` (any other URL that fsspec knows) |
|---|---|---|---|
| a write that returned outlives a power cut | yes (`syncfs`) | as the server promises | as its file system does |
| a reader can meet half an object | while it is first written; no row names it yet | never | as its file system does |
| many are removed | one call each | a thousand to a request, where the server can | one call each |
| `modified` in a listing | yes | yes | where its file system tells |
| old versions of an object | none | `app.storage.contents.object_versions` | not looked for |
| tested | every test | moto, Ceph | fsspec's `memory` alone |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Listed:
    """One object as a listing shows it. `modified` is in seconds since 1970, None where the store does not tell."""

    path: str
    size: int
    modified: float | None


class Objects(Protocol):
    """Objects by absolute path. Every method may raise whatever its library raises; a missing object is a value."""

    system: str
    """What it is, for people and metrics: `file`, `s3`, or fsspec's name for it."""

    async def write(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Write objects over what is there, all of them or an error; they are durable when this returns."""

    async def write_whole(self, path: str, content: bytes) -> None:
        """Write one small object, whole or not at all, where none is or an empty one."""

    async def read(self, paths: Sequence[str]) -> list[bytes | None]:
        """The objects in order; None where there is none."""

    async def remove(self, paths: Sequence[str]) -> None:
        """Remove objects; one that is not there is fine."""

    async def remove_below(self, path: str) -> None:
        """Remove everything below a path, and the path itself where it is a directory."""

    async def list_below(self, paths: Sequence[str]) -> list[Listed]:
        """Every object below these paths, at any depth, path after path."""

    async def names(self, path: str) -> list[str]:
        """The names directly below a path, of objects and of what holds others."""

    async def close(self) -> None:
        """Wait for what is under way."""
