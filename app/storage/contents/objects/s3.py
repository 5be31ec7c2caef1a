"""Objects of an S3 bucket, through an fsspec file system: obstore's, with flat listings and bulk removal.

obstore costs a fifth of the CPU of the botocore family per call (docs/performance.md).
"""

import asyncio
import os
import re
from collections.abc import Awaitable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import boto3
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.fsspec import FsspecStore

from app.storage.contents.objects.port import Listed

T = TypeVar("T")

_REQUESTS_AT_ONCE = 64
CONNECT_SECONDS = 3
REQUEST_SECONDS = 10
RETRIES = 2

_REFUSES_MANY = re.compile(
    r"NotImplemented|Not Implemented|MethodNotAllowed|MissingContentMD5|Content-MD5|NotSupported|\b(400|405|411|501)\b"
)
"""What servers say that know no request for many objects, or want another check sum of it."""


class S3FileSystem(FsspecStore):
    """Objects by `bucket/key`; only the asynchronous methods are used."""

    cachable = False
    _singly: "S3FileSystem | None" = None
    """The same, with a request for each object that is removed: Google's S3 interface knows no other."""
    _refuses_many = False

    async def _find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        **_: Any,
    ) -> Any:
        """Everything below a prefix by plain listing pages: with `detail` a dict of `size` and `mtime` by name."""
        bucket, prefix = self._split_path(path)
        found: dict[str, dict[str, Any]] = {}
        async for page in self._construct_store(bucket).list(prefix):
            for entry in page:
                name = f"{bucket}/{entry['path']}"
                found[name] = {
                    "name": name,
                    "type": "file",
                    "size": entry["size"],
                    "mtime": entry["last_modified"].timestamp(),
                }
        return found if detail else sorted(found)

    async def _rm(self, path: str | list[str], recursive: bool = False, **_: Any) -> None:
        """Remove objects, a thousand to a request; one that is gone already is fine."""
        paths = [path] if isinstance(path, str) else path
        by_bucket: dict[str, list[str]] = {}
        for name in paths:
            bucket, key = self._split_path(name)
            by_bucket.setdefault(bucket, []).append(key)
        for bucket, keys in by_bucket.items():
            await self._remove(bucket, keys)

    async def _remove(self, bucket: str, keys: list[str]) -> None:
        if self._singly is None or not self._refuses_many:
            try:
                await self._construct_store(bucket).delete_async(keys)
                return
            except Exception as error:
                if self._singly is None or not _REFUSES_MANY.search(str(error)):
                    raise
        await self._singly._construct_store(bucket).delete_async(keys)
        # Only now: what was refused may have been something else.
        self._refuses_many = True


class S3Objects:
    """`Objects` by `bucket/key`."""

    system = "s3"

    def __init__(self, endpoint_url: str | None) -> None:
        """See `open_s3`."""
        self._fs = open_s3(endpoint_url)
        self._requests = asyncio.Semaphore(_REQUESTS_AT_ONCE)

    async def write(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """See `Objects`."""
        await self._gather([self._fs._pipe_file(path, content) for path, content in objects])

    async def write_whole(self, path: str, content: bytes) -> None:
        """See `Objects`: an object of S3 is there as a whole or not at all."""
        await self.write([(path, content)])

    async def read(self, paths: Sequence[str]) -> list[bytes | None]:
        """See `Objects`."""
        return await self._gather([_or_none(self._fs._cat_file(path)) for path in paths])

    async def remove(self, paths: Sequence[str]) -> None:
        """See `Objects`."""
        await self._gather([_or_none(self._fs._rm(list(paths)))])

    async def remove_below(self, path: str) -> None:
        """See `Objects`."""
        if found := [entry.path for entry in await self.list_below([path])]:
            await self.remove(found)

    async def list_below(self, paths: Sequence[str]) -> list[Listed]:
        """See `Objects`."""
        found = await self._gather([self._fs._find(f"{path}/", detail=True) for path in paths])
        return [Listed(name, entry["size"], entry["mtime"]) for one in found for name, entry in one.items()]

    async def names(self, path: str) -> list[str]:
        """See `Objects`."""
        (entries,) = await self._gather([_or_none(self._fs._ls(path, detail=False))])
        return [entry.rstrip("/").rpartition("/")[2] for entry in entries or ()]

    async def close(self) -> None:
        """See `Objects`: nothing outlives its call."""

    async def _gather(self, calls: Sequence[Awaitable[T]]) -> list[T]:
        async def bounded(call: Awaitable[T]) -> T:
            async with self._requests:
                return await call

        # Every request has ended when the error of one is raised.
        results = await asyncio.gather(*map(bounded, calls), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results  # type: ignore[return-value]


async def _or_none(call: Awaitable[T]) -> T | None:
    try:
        return await call
    except FileNotFoundError:
        return None


def open_s3(endpoint_url: str | None) -> S3FileSystem:
    """The file system for the usual AWS variables and credential sources (environment, profile, instance role).

    `endpoint_url` is that of another S3-speaking server; buckets are then part of the path.

    Raises:
        ValueError: no source has credentials.
    """
    config: dict[str, Any] = {}
    if endpoint_url:
        config = {"endpoint": endpoint_url, "virtual_hosted_style_request": False}
    session = boto3.Session()
    config["region"] = session.region_name or "us-east-1"
    options: dict[str, Any] = {
        "config": config,
        "client_options": {
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "timeout": timedelta(seconds=REQUEST_SECONDS),
            "allow_http": bool(endpoint_url and endpoint_url.startswith("http://")),
        },
        "retry_config": {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=REQUEST_SECONDS)},
        "asynchronous": True,
    }
    if not (os.environ.get("AWS_ACCESS_KEY_ID") and os.environ.get("AWS_SECRET_ACCESS_KEY")):
        if session.get_credentials() is None:
            raise ValueError(
                "S3 needs credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or an instance role"
            )
        options["credential_provider"] = Boto3CredentialProvider(session)
    files = S3FileSystem("s3", **options)
    files._singly = S3FileSystem("s3", **options | {"config": {**config, "disable_bulk_delete": True}})
    return files
