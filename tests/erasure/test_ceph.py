"""Erasure on a real S3 server: Ceph's gateway, with and without versions of objects."""

from pathlib import Path
from typing import Any

import boto3
import pytest

from app.erasure.service import Erasures
from app.storage.rows import migrations
from tests.erasure.conftest import OPERATOR
from tests.erasure.planting import bucket_of, endpoint_of, object_versions
from tests.erasure.steps import checked, erase
from tests.storage.parts import opened, options
from tests.support.backends import Backend

pytestmark = pytest.mark.anyio


@pytest.fixture
def on_ceph(ceph_backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The settings of an empty, migrated service on Ceph."""
    environment = ceph_backend.environment(tmp_path)
    for name, value in environment.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    # It remembers the credentials of other tests' servers.
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    migrations.upgrade(options(environment).database_url)
    return environment


@pytest.mark.parametrize("versioning", ["none", "Enabled", "Suspended"])
async def test_what_is_erased_is_in_no_object_of_ceph_whatever_the_buckets_versioning(
    versioning: str, on_ceph: dict[str, str]
) -> None:
    def version_objects(status: str) -> None:
        with endpoint_of(on_ceph).client() as s3:
            s3.put_bucket_versioning(Bucket=bucket_of(on_ceph), VersioningConfiguration={"Status": status})

    if versioning != "none":
        version_objects("Enabled")
    async with opened(on_ceph) as parts:
        whole, shared = await parts.store(), await parts.store()
        memory = await parts.create(whole, "Anna", "/a.md")
        await parts.create(shared, "Anna, shared", "/a.md")
        await parts.create(shared, "somebody else", "/b.md")
        await parts.move_all()
        await parts.update(memory, "Anna, again")
        if versioning == "Suspended":
            version_objects("Suspended")
        await parts.move_all()
        for chosen in ({"store_ids": [whole]}, {"contains": "anna"}):
            selection: dict[str, Any] = dict(chosen)
            made = await erase(parts, Erasures(parts.storage, OPERATOR), **selection)
            assert [place for place in made["places"] if not place["complete"]] == []
            assert (await checked(parts, made)).nothing_left
        assert await parts.list_contents(shared) == ["somebody else"]
    left = [text for _, text in object_versions(on_ceph)]
    assert b"somebody else" in left
    assert not any(b"Anna" in text for text in left)
