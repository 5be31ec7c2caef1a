"""Old object versions and delete markers of a versioned S3 bucket, which plain listings and removals never show.

Through boto3: fsspec knows no versions of a whole prefix. A bucket that was never versioned lists each object as its
one version, so nothing has to be asked about it first.
"""

import asyncio
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from app.storage.contents.objects.s3 import CONNECT_SECONDS, REQUEST_SECONDS, RETRIES

T = TypeVar("T")

_AT_ONCE = 1_000
"""Keys that one request removes at most."""

_ASKED_ABOUT = 20
"""Kept versions whose retention is asked for."""
_GONE = ("NoSuchVersion", "NoSuchKey")
_REFUSES_MANY = (
    "NotImplemented", "MethodNotAllowed", "MissingContentMD5", "InvalidDigest", "BadDigest", "InvalidRequest",
    "InvalidArgument", "NotSupported", "501", "405",
)  # fmt: skip
"""What servers say that know no request for many objects, or want another check sum of it."""
_KNOWS_NO_VERSIONS = ("NotImplemented", "MethodNotAllowed", "501", "405")


class VersionsOutOfReach(Exception):
    """The bucket does not let its object versions be listed or removed; the text says why."""


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One version of an object, or a delete marker; `name` is what follows the store's ID in the key."""

    store_id: str
    name: str
    key: str
    version_id: str
    is_marker: bool
    is_latest: bool


@dataclass(frozen=True, slots=True)
class _Refused:
    code: str
    key: str
    version_id: str


class ObjectVersions:
    """The object versions below the root of one blob store."""

    def __init__(self, bucket: str, prefix: str, endpoint_url: str | None) -> None:
        """Nothing is asked yet. `prefix` has no slash at its ends."""
        self._bucket = bucket
        self._root = f"{prefix}/" if prefix else ""
        self._endpoint_url = endpoint_url

    def _client(self) -> Any:
        config = Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=REQUEST_SECONDS,
            retries={"total_max_attempts": RETRIES + 1},
            # Not every server knows the check sums that boto3 adds of its own accord.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        region = boto3.Session().region_name or os.environ.get("AWS_REGION") or "us-east-1"
        return boto3.client("s3", endpoint_url=self._endpoint_url, region_name=region, config=config)

    async def of_store(self, store_id: str) -> list[ObjectVersion]:
        """Every version of one memory store's objects.

        Raises:
            VersionsOutOfReach: they can't be listed.

        """
        return await _in_a_thread(lambda: list(self._pages(f"{self._root}{store_id}/")))

    async def of_all(self) -> list[ObjectVersion]:
        """Every version of every memory store's objects. Errors as `of_store`."""
        return await _in_a_thread(lambda: list(self._pages(self._root)))

    def _pages(self, prefix: str) -> Iterator[ObjectVersion]:
        client = self._client()
        try:
            for page in client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=prefix):
                for kind in ("Versions", "DeleteMarkers"):
                    for entry in page.get(kind, ()):
                        store_id, _, name = entry["Key"].removeprefix(self._root).partition("/")
                        if name:
                            is_marker, is_latest = kind == "DeleteMarkers", entry["IsLatest"]
                            yield ObjectVersion(store_id, name, entry["Key"], entry["VersionId"], is_marker, is_latest)
        except ClientError as error:
            # A server that has no such request keeps no versions.
            if _code(error) not in _KNOWS_NO_VERSIONS:
                raise
        finally:
            client.close()

    async def remove(self, versions: Collection[ObjectVersion]) -> None:
        """Remove exactly these versions, permanently.

        Raises:
            VersionsOutOfReach: some could not be removed, for example because of an object lock.

        """
        objects = [{"Key": version.key, "VersionId": version.version_id} for version in versions]

        def work() -> None:
            client = self._client()
            try:
                refused: list[_Refused] = []
                for start in range(0, len(objects), _AT_ONCE):
                    refused += self._remove_part(client, objects[start : start + _AT_ONCE])
                if refused:
                    why = f"{refused[0].code}{self._until(client, refused)}"
                    raise VersionsOutOfReach(f"{len(refused)} object versions can't be removed: {why}")
            finally:
                client.close()

        await _in_a_thread(work)

    def _remove_part(self, client: Any, objects: list[dict[str, str]]) -> list["_Refused"]:
        """Remove at most a thousand versions; those that the server keeps."""
        try:
            answer = client.delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})
        except ClientError as error:
            if _code(error) not in _REFUSES_MANY:
                raise
            return self._remove_singly(client, objects)
        refused = []
        for kept in answer.get("Errors", []):
            # Not every server names the version beside the key.
            named = [one["VersionId"] for one in objects if one["Key"] == kept.get("Key")]
            if kept.get("Code") not in _GONE:
                version_id = kept.get("VersionId") or next(iter(named), "")
                refused.append(_Refused(kept.get("Code", ""), kept.get("Key", ""), version_id))
        return refused

    def _remove_singly(self, client: Any, objects: list[dict[str, str]]) -> list["_Refused"]:
        refused = []
        for one in objects:
            try:
                client.delete_object(Bucket=self._bucket, **one)
            except ClientError as error:
                if _code(error) not in _GONE:
                    refused.append(_Refused(_code(error), one["Key"], one["VersionId"]))
        return refused

    def _until(self, client: Any, refused: list["_Refused"]) -> str:
        """Until when an object lock keeps them, as far as the server tells."""
        moments = []
        for one in refused[:_ASKED_ABOUT]:
            asked = {"Bucket": self._bucket, "Key": one.key, "VersionId": one.version_id}
            try:
                moments.append(client.head_object(**asked)["ObjectLockRetainUntilDate"])
            except (ClientError, BotoCoreError, KeyError):
                continue
        if not moments:
            return ""
        return f"; an object lock keeps them until {max(moments):%Y-%m-%d}, erase once more then"

    async def read(self, version: ObjectVersion) -> bytes:
        """The bytes of one version.

        Raises:
            VersionsOutOfReach: it can't be read.

        """

        def work() -> bytes:
            client = self._client()
            try:
                found = client.get_object(Bucket=self._bucket, Key=version.key, VersionId=version.version_id)
                content: bytes = found["Body"].read()
                return content
            finally:
                client.close()

        return await _in_a_thread(work)


def _code(error: ClientError) -> str:
    code: str = error.response.get("Error", {}).get("Code", "")
    return code


async def _in_a_thread(work: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(work)
    except ClientError as error:
        raise VersionsOutOfReach(f"the bucket refuses: {error.response.get('Error', {}).get('Code')}") from error
    except BotoCoreError as error:
        raise VersionsOutOfReach(f"the bucket does not answer: {type(error).__name__}") from error
