"""The blob store: the home of content, on any `Objects`. Keys are `<store id>/<sha256 in hex>`."""

import contextlib
import logging
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import fsspec

from app.contract.errors import MemstoreError, Unavailable
from app.storage.contents.objects.anywhere import ThreadedObjects
from app.storage.contents.objects.disk import DiskObjects
from app.storage.contents.objects.port import Objects
from app.storage.metrics import BLOB_STORE_FAILURES, BLOB_STORE_SECONDS
from app.storage.rows.timing import timed

if TYPE_CHECKING:
    from app.storage.contents.object_versions import ObjectVersions

_log = logging.getLogger(__name__)

_SHA256_HEX_DIGITS = 64
_DIGEST = re.compile(rf"[0-9a-f]{{{_SHA256_HEX_DIGITS}}}")
"""A reader who knows a text can tell from its digest that it was here, so no digest goes into a log."""
_OWNER_MARK = ".memstore-installation"
_OWNER = re.compile(rb"[0-9a-f]{32}")


class BlobStoreUnavailable(Unavailable):
    """The blob store does not answer or refuses; what is staged in the database is safe."""


class DamagedMark(MemstoreError):
    """What says whose this place is can't be read, so nobody knows whose blobs these are."""


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """One blob as a listing shows it. `modified` is in seconds since 1970, None where the store does not tell."""

    store_id: str
    sha256: bytes
    size: int
    modified: float | None


def key(store_id: str, sha256: bytes) -> str:
    """Where a content lives, below the blob store's root."""
    return f"{store_id}/{sha256.hex()}"


class BlobStore:
    """Puts, reads, lists and removes blobs, and knows whose they are.

    Every method raises `BlobStoreUnavailable` when the store does not answer; a missing blob is a value.
    """

    object_versions: "ObjectVersions | None" = None
    """Where the store may keep old versions of its objects: on S3."""

    def __init__(self, objects: Objects, root: str) -> None:
        self.objects = objects
        self.root = root.rstrip("/")

    @property
    def system(self) -> str:
        """What keeps the blobs; see `Objects.system`."""
        return self.objects.system

    @property
    def mark(self) -> str:
        """The path of the object that names the installation which owns this place."""
        return f"{self.root}/{_OWNER_MARK}"

    def _path(self, store_id: str, sha256: bytes) -> str:
        return f"{self.root}/{key(store_id, sha256)}"

    @timed(BLOB_STORE_SECONDS, "put")
    async def put_many(self, blobs: Sequence[tuple[str, bytes, bytes]]) -> None:
        """Store contents durably: (store ID, SHA-256, content). Idempotent; all of them, or an error."""
        with _failures_told():
            await self.objects.write([(self._path(store_id, sha256), content) for store_id, sha256, content in blobs])

    async def get_many(self, blobs: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        """The contents of (store ID, SHA-256) pairs, in order; None where there is no such blob."""
        return await self._read([self._path(store_id, sha256) for store_id, sha256 in blobs])

    @timed(BLOB_STORE_SECONDS, "get")
    async def _read(self, paths: Sequence[str]) -> list[bytes | None]:
        with _failures_told():
            return await self.objects.read(paths)

    @timed(BLOB_STORE_SECONDS, "remove")
    async def remove(self, blobs: Iterable[tuple[str, bytes]]) -> None:
        """Remove blobs; one that is not there is fine."""
        if paths := [self._path(store_id, sha256) for store_id, sha256 in blobs]:
            with _failures_told():
                await self.objects.remove(paths)

    async def remove_store(self, store_id: str) -> None:
        """Remove everything of one memory store."""
        with _failures_told():
            await self.objects.remove_below(f"{self.root}/{store_id}")

    async def list_store(self, store_id: str) -> list[BlobInfo]:
        """Every blob of one memory store."""
        return await self.list_stores([store_id])

    @timed(BLOB_STORE_SECONDS, "list")
    async def list_stores(self, store_ids: Sequence[str]) -> list[BlobInfo]:
        """Every blob of these memory stores, store after store."""
        with _failures_told():
            found = await self.objects.list_below([f"{self.root}/{store_id}" for store_id in store_ids])
        below = len(self.root) + 1
        return [
            BlobInfo(listed.path[below:].partition("/")[0], bytes.fromhex(name), listed.size, listed.modified)
            for listed in found
            if len(name := listed.path.rpartition("/")[2]) == _SHA256_HEX_DIGITS
        ]

    async def list_store_ids(self) -> list[str]:
        """The memory stores that have blobs."""
        with _failures_told():
            names = await self.objects.names(self.root)
        return sorted(name for name in names if not name.startswith("."))

    async def owner(self, candidate: str) -> str:
        """The ID of the installation that this place belongs to: the first one that asked.

        Raises:
            DamagedMark: what says so can't be read.

        """
        # A bucket that does not exist looks like a mark that does not; only the write tells them apart.
        owner = await self.marked_owner()
        if owner is None:
            # Whole or not at all: a part of it would disown the place for ever.
            with _failures_told():
                await self.objects.write_whole(self.mark, candidate.encode())
            owner = await self.marked_owner()
        return owner or ""

    async def marked_owner(self) -> str | None:
        """The installation that this place is marked as belonging to, if it is; nothing is written.

        A mark without content is none: a full disk or a power cut left it.

        Raises:
            DamagedMark: it holds something else than an ID.

        """
        (written,) = await self._read([self.mark])
        # The file of a power cut may have its length, and zeros for content.
        if written is None or not (text := written.strip(b" \t\r\n\x00")):
            return None
        if not _OWNER.fullmatch(text):
            raise DamagedMark(
                f"{self.mark} should hold the ID of an installation, and holds {len(written):,} other bytes"
            )
        return text.decode()

    async def close(self) -> None:
        """Wait for what is still written."""
        await self.objects.close()


@contextlib.contextmanager
def _failures_told() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        BLOB_STORE_FAILURES.inc()
        # What a library says of its requests is for the log, but for digests; a caller learns what it means.
        _log.warning("the blob store failed: %s", _DIGEST.sub("<sha256>", str(error)))
        raise BlobStoreUnavailable("the blob store does not answer or can't store; try again") from error


def open_blob_store(url: str, s3_endpoint_url: str | None) -> BlobStore:
    """The blob store behind an fsspec URL: `file:///dir`, `s3://bucket/prefix`, or any other that fsspec knows."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return BlobStore(DiskObjects(parts.path), parts.path)
    if parts.scheme == "s3":
        # boto3 takes as long to import as everything else together; on a disk no command needs it.
        from app.storage.contents.object_versions import ObjectVersions
        from app.storage.contents.objects.s3 import S3Objects

        blobs = BlobStore(S3Objects(s3_endpoint_url), f"{parts.netloc}{parts.path}")
        blobs.object_versions = ObjectVersions(parts.netloc, parts.path.strip("/"), s3_endpoint_url)
        return blobs
    filesystem, root = fsspec.core.url_to_fs(url)
    return BlobStore(ThreadedObjects(filesystem), root)


async def iterate(blobs: BlobStore) -> AsyncIterator[BlobInfo]:
    """Every blob of every memory store."""
    for store_id in await blobs.list_store_ids():
        for blob in await blobs.list_store(store_id):
            yield blob
