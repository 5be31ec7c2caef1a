"""Erasure on S3 servers and buckets as they are found: without bulk removal, versioned, suspended, locked."""

import datetime
from typing import Any

import pytest

from app.erasure.service import Erasures
from tests.erasure.planting import bucket_of, endpoint_of, object_versions
from tests.erasure.steps import checked, erase
from tests.storage.parts import Parts, opened
from tests.support.backends import POSTGRES_S3, Backend
from tests.support.plain_s3 import without

pytestmark = [pytest.mark.anyio]


@pytest.fixture(autouse=True)
def _on_s3(backend: Backend) -> None:
    if backend.name != POSTGRES_S3:
        pytest.skip("it is about S3")


async def planted(parts: Parts) -> str:
    """A store with an old and a new content, both in the bucket; its ID."""
    store_id = await parts.store()
    memory = await parts.create(store_id, "Anna", "/a.md")
    await parts.update(memory, "Anna, again")
    await parts.move_all()
    return store_id


@pytest.mark.parametrize(
    ("queries", "status", "code"),
    [
        (frozenset({"delete"}), 501, "NotImplemented"),
        (frozenset({"delete"}), 400, "MissingContentMD5"),
        (frozenset({"delete", "versions"}), 405, "MethodNotAllowed"),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
async def test_a_server_without_bulk_removal_is_asked_for_one_object_at_a_time(
    parts: Parts, environment: dict[str, str], queries: frozenset[str], status: int, code: str, whole: bool
) -> None:
    with without(endpoint_of(environment), queries, status, code) as plain:
        async with opened(environment | plain.environment()) as there:
            store_id = await planted(there)
            chosen: dict[str, Any] = {"store_ids": [store_id]} if whole else {"contains": "anna"}
            made = await erase(there, Erasures(there.storage, _somebody()), **chosen)
            assert all(place["complete"] for place in made["places"]), made["places"]
            assert (await checked(there, made)).nothing_left
    assert [key for key, _ in object_versions(environment) if store_id in key] == []


@pytest.mark.parametrize("whole", [True, False])
async def test_null_versions_of_a_suspended_bucket_go_with_the_numbered_ones(
    parts: Parts, environment: dict[str, str], whole: bool
) -> None:
    bucket = bucket_of(environment)
    with endpoint_of(environment).client() as s3:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        store_id = await planted(parts)
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
        late = await parts.create(store_id, "Anna, late", "/late.md")
        await parts.move_all()
        await parts.delete(late)
        chosen: dict[str, Any] = {"store_ids": [store_id]} if whole else {"contains": "anna"}
        made = await erase(parts, Erasures(parts.storage, _somebody()), **chosen)
    assert all(place["complete"] for place in made["places"]), made["places"]
    assert (await checked(parts, made)).nothing_left
    assert [key for key, _ in object_versions(environment) if store_id in key] == []


@pytest.mark.parametrize("lacking", [frozenset(), frozenset({"delete"})], ids=["in bulk", "singly"])
async def test_what_an_object_lock_keeps_is_said_with_its_date(
    parts: Parts, environment: dict[str, str], lacking: frozenset[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = parts.blobs.object_versions
    assert versions is not None
    name = f"{bucket_of(environment)}-locked"
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=40)
    with endpoint_of(environment).client() as s3:
        s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
        monkeypatch.setattr(versions, "_bucket", name)
        store_id = await parts.store()
        key = f"{versions._root}{store_id}/{'0' * 64}"
        s3.put_object(Bucket=name, Key=key, Body=b"Anna", ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=until)
    with without(endpoint_of(environment), lacking, 501, "NotImplemented") as server:
        monkeypatch.setattr(versions, "_endpoint_url", server.url)
        made = await erase(parts, Erasures(parts.storage, _somebody()), store_ids=[store_id])
        (place,) = (place for place in made["places"] if place["place"] == "object versions")
        assert not place["complete"]
        assert f"until {until:%Y-%m-%d}" in place["not_reached"][0]
        assert not (await checked(parts, made)).nothing_left


def _somebody() -> Any:
    from tests.erasure.conftest import OPERATOR

    return OPERATOR
