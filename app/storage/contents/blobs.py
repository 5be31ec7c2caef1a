"""The blob store: the home of content, behind fsspec. Keys are `<store id>/<sha256 in hex>`."""

import asyncio
import contextlib
import errno
import itertools
import logging
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import fsspec
from fsspec.asyn import AsyncFileSystem

from app.contract.errors import MemstoreError, Unavailable
from app.storage.contents.objects.disk import DurableLocalFileSystem
from app.storage.contents.whole_files import write_whole
from app.storage.metrics import BLOB_STORE_FAILURES, BLOB_STORE_SECONDS
from app.storage.rows.timing import timed

if TYPE_CHECKING:
    from app.storage.contents.object_versions import ObjectVersions

_log = logging.getLogger(__name__)

T = TypeVar("T")

_THREADS = 8
_REQUESTS_AT_ONCE = 64
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
    """Puts, reads, lists and removes blobs through one fsspec file system.

    Every method raises `BlobStoreUnavailable` when the store does not answer; a missing blob is a value.
    """

    object_versions: "ObjectVersions | None" = None
    """Where the store may keep old versions of its objects: on S3."""

    def __init__(self, filesystem: Any, root: str) -> None:
        protocol = filesystem.protocol
        self.system: str = protocol if isinstance(protocol, str) else protocol[0]
        self._fs = filesystem
        self._root = root.rstrip("/")
        self._is_async = isinstance(filesystem, AsyncFileSystem) and filesystem.asynchronous
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="blobs")
        self._requests = asyncio.Semaphore(_REQUESTS_AT_ONCE)

    def _path(self, store_id: str, sha256: bytes) -> str:
        return f"{self._root}/{key(store_id, sha256)}"

    async def put_many(self, blobs: Sequence[tuple[str, bytes, bytes]]) -> None:
        """Store contents durably: (store ID, SHA-256, content). Idempotent; all of them, or an error."""
        paths = [(self._path(store_id, sha256), content) for store_id, sha256, content in blobs]
        await self._write_many(paths)

    async def get_many(self, blobs: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        """The contents of (store ID, SHA-256) pairs, in order; None where there is no such blob."""
        return await self._read_many([self._path(store_id, sha256) for store_id, sha256 in blobs])

    async def remove(self, blobs: Iterable[tuple[str, bytes]]) -> None:
        """Remove blobs; one that is not there is fine."""
        await self._remove_paths([self._path(store_id, sha256) for store_id, sha256 in blobs])

    async def remove_store(self, store_id: str) -> None:
        """Remove everything of one memory store."""
        prefix = f"{self._root}/{store_id}"
        if self._is_async:
            found = await self._gather([self._fs._find(prefix + "/")])
            await self._remove_paths(found[0])
            return
        await self._in_threads(lambda path: _or_none(lambda: self._fs.rm(path, recursive=True)), [prefix])

    async def list_store(self, store_id: str) -> list[BlobInfo]:
        """Every blob of one memory store."""
        prefix = f"{self._root}/{store_id}/"
        found = await self._find(prefix)
        blobs = []
        for path, entry in found.items():
            name = path.rpartition("/")[2]
            if len(name) != _SHA256_HEX_DIGITS:
                continue
            blobs.append(BlobInfo(store_id, bytes.fromhex(name), entry["size"], _modified(entry)))
        return blobs

    async def list_store_ids(self) -> list[str]:
        """The memory stores that have blobs."""
        try:
            if self._is_async:
                entries = await self._fs._ls(self._root, detail=False)
            else:
                entries = await self._run(lambda: self._fs.ls(self._root, detail=False))
        except FileNotFoundError:
            return []
        except Exception as error:
            raise _unavailable(error) from error
        names = (path.rstrip("/").rpartition("/")[2] for path in entries)
        return sorted(name for name in names if not name.startswith("."))

    async def owner(self, candidate: str) -> str:
        """The ID of the installation that this place belongs to: the first one that asked.

        Raises:
            DamagedMark: what says so can't be read.

        """
        # A bucket that does not exist looks like a mark that does not; only the write tells them apart.
        owner = await self.marked_owner()
        if owner is None:
            await self._mark(candidate)
            owner = await self.marked_owner()
        return owner or ""

    async def marked_owner(self) -> str | None:
        """The installation that this place is marked as belonging to, if it is; nothing is written.

        A mark without content is none: a full disk or a power cut left it.

        Raises:
            DamagedMark: it holds something else than an ID.

        """
        path = f"{self._root}/{_OWNER_MARK}"
        (written,) = await self._read_many([path])
        if written is None or not (text := _text(written)):
            return None
        if not _OWNER.fullmatch(text):
            raise DamagedMark(f"{path} should hold the ID of an installation, and holds {len(written):,} other bytes")
        return text.decode()

    async def _mark(self, owner: str) -> None:
        """Write the mark, whole or not at all: a part of it would disown the place for ever."""
        path, content = f"{self._root}/{_OWNER_MARK}", owner.encode()
        if self._is_async:
            await self._write_many([(path, content)])  # An object of S3 is there as a whole or not at all.
            return
        try:
            await self._run(lambda: self._mark_whole(path, content))
        except Exception as error:
            raise _unavailable(error) from error

    def _mark_whole(self, path: str, content: bytes) -> None:
        if isinstance(self._fs, DurableLocalFileSystem):
            # What is there is an empty mark, unless another installation is faster.
            with contextlib.suppress(FileExistsError):
                write_whole(Path(path), content, replace=os.path.exists(path) and not _text(Path(path).read_bytes()))
            return
        try:
            self._fs.pipe_file(path, content)
            written = self._fs.cat_file(path)
        except Exception:
            with contextlib.suppress(Exception):
                self._fs.rm_file(path)
            raise
        if written != content:
            self._fs.rm_file(path)
            raise OSError(errno.EIO, "was cut short", path)

    async def close(self) -> None:
        """Wait for the threads that still write."""
        await asyncio.to_thread(self._threads.shutdown)

    @timed(BLOB_STORE_SECONDS, "put")
    async def _write_many(self, files: Sequence[tuple[str, bytes]]) -> None:
        if self._is_async:
            await self._gather([self._fs._pipe_file(path, content) for path, content in files])
        else:
            await self._in_threads(lambda part: self._fs.pipe(dict(part)), [files], threads=1)

    @timed(BLOB_STORE_SECONDS, "get")
    async def _read_many(self, paths: Sequence[str]) -> list[bytes | None]:
        if self._is_async:
            return await self._gather([_or_none_async(self._fs._cat_file(path)) for path in paths])
        return await self._in_threads(lambda path: _or_none(lambda: self._fs.cat_file(path)), paths, threads=1)

    @timed(BLOB_STORE_SECONDS, "list")
    async def _find(self, prefix: str) -> dict[str, Any]:
        if self._is_async:
            found = await self._gather([self._fs._find(prefix, detail=True)])
            entries: dict[str, Any] = found[0]
            return entries
        try:
            entries = await self._run(lambda: self._fs.find(prefix, detail=True))
        except Exception as error:
            raise _unavailable(error) from error
        return entries

    @timed(BLOB_STORE_SECONDS, "remove")
    async def _remove_paths(self, paths: list[str]) -> None:
        if not paths:
            return
        if self._is_async:
            await self._gather([_or_none_async(self._fs._rm(paths))])
        else:
            await self._in_threads(lambda path: _or_none(lambda: self._fs.rm_file(path)), paths)

    async def _gather(self, calls: Sequence[Awaitable[T]]) -> list[T]:
        async def bounded(call: Awaitable[T]) -> T:
            async with self._requests:
                return await call

        results = await asyncio.gather(*map(bounded, calls), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise _unavailable(result) from result
        return results  # type: ignore[return-value]

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def _in_threads(self, call: Callable[[Any], T], items: Sequence[Any], threads: int = _THREADS) -> list[T]:
        """`call` on every item, in a few threads that each take a share: a hop costs more than a small file."""
        share = max(1, -(-len(items) // threads))
        shares = [items[start : start + share] for start in range(0, len(items), share)]

        def work(part: Sequence[Any]) -> list[T]:
            return [call(item) for item in part]

        results = await asyncio.gather(
            *(self._run(lambda part=part: work(part)) for part in shares),  # type: ignore[misc]
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise _unavailable(result) from result
        return list(itertools.chain.from_iterable(results))  # type: ignore[arg-type]


def _unavailable(error: BaseException) -> BaseException:
    if isinstance(error, asyncio.CancelledError | BlobStoreUnavailable):
        return error
    BLOB_STORE_FAILURES.inc()
    # What a library says of its requests is for the log, but for digests; a caller learns what it means.
    _log.warning("the blob store failed: %s", _DIGEST.sub("<sha256>", str(error)))
    return BlobStoreUnavailable("the blob store does not answer or can't store; try again")


def _or_none(call: Callable[[], T]) -> T | None:
    try:
        return call()
    except FileNotFoundError:
        return None


async def _or_none_async(call: Awaitable[T]) -> T | None:
    try:
        return await call
    except FileNotFoundError:
        return None


def _text(mark: bytes) -> bytes:
    """What is written in a mark: the file of a power cut may have its length and zeros for content."""
    return mark.strip(b" \t\r\n\x00")


def _modified(entry: dict[str, Any]) -> float | None:
    moment = entry.get("mtime") or entry.get("last_modified") or entry.get("LastModified")
    if moment is None or isinstance(moment, int | float):
        return moment
    seconds: float = moment.timestamp()
    return seconds


def open_blob_store(url: str, s3_endpoint_url: str | None) -> BlobStore:
    """The blob store behind an fsspec URL: `file:///dir`, `s3://bucket/prefix`, or any other that fsspec knows."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return BlobStore(DurableLocalFileSystem(parts.path), parts.path)
    if parts.scheme == "s3":
        # boto3 takes as long to import as everything else together; on a disk no command needs it.
        from app.storage.contents.object_versions import ObjectVersions
        from app.storage.contents.objects.s3 import open_s3

        blobs = BlobStore(open_s3(s3_endpoint_url), f"{parts.netloc}{parts.path}")
        blobs.object_versions = ObjectVersions(parts.netloc, parts.path.strip("/"), s3_endpoint_url)
        return blobs
    filesystem, root = fsspec.core.url_to_fs(url)
    return BlobStore(filesystem, root)


async def iterate(blobs: BlobStore) -> AsyncIterator[BlobInfo]:
    """Every blob of every memory store."""
    for store_id in await blobs.list_store_ids():
        for blob in await blobs.list_store(store_id):
            yield blob
