"""A text planted wherever the API takes one, and the places where its bytes could be found afterwards."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anthropic
import httpx2

from tests.support.postgres import URL_VARIABLE, execute
from tests.support.s3 import S3Endpoint
from tests.support.servers import Server


def new_marker() -> str:
    """A text that is nowhere yet. It is its own slug, so that it shows in mount paths too."""
    return f"xanthippe{uuid.uuid4().hex[:12]}"


def session_with(client: anthropic.Anthropic, *stores: dict[str, Any]) -> str:
    """A session that attaches these stores; its ID."""
    agent = client.beta.agents.create(name="Support", model="claude-opus-5-5")
    environment = client.beta.environments.create(name=f"erasure {uuid.uuid4()}", config={"type": "cloud"})
    resources: Any = [{"type": "memory_store", **store} for store in stores]
    return client.beta.sessions.create(agent=agent.id, environment_id=environment.id, resources=resources).id


def plant(client: anthropic.Anthropic, http: httpx2.Client, marker: str) -> str:
    """Write the text through every door of the API; the ID of the one store it is in."""
    stores = client.beta.memory_stores
    store = stores.create(
        name=f"Notes on {marker}", description=f"What {marker} told us.", metadata={"user": "u_123", "who": marker}
    )
    stores.update(store.id, description=f"What {marker} told us, twice.")
    memories = stores.memories
    plain = memories.create(store.id, path="/plain.md", content=f"likes tea, says {marker}")
    memories.update(plain.id, memory_store_id=store.id, content=f"likes coffee, says {marker}")
    memories.update(plain.id, memory_store_id=store.id, content="likes nothing")
    renamed = memories.create(store.id, path=f"/{marker}/file.md", content="a name")
    memories.update(renamed.id, memory_store_id=store.id, path="/renamed.md")
    deleted = memories.create(store.id, path=f"/gone/{marker}.md", content=f"gone: {marker}" * 200)
    memories.delete(deleted.id, memory_store_id=store.id)
    memories.create(store.id, path=f"/plain (conflict {marker} 2026-11-20).md", content=f"kept beside: {marker}")
    memories.create(store.id, path="/large.md", content=f"{marker} " * 3_000)
    for path, content in ((f"/{marker}//twice.md", "x"), ("/renamed.md", marker), (f"/renamed.md/{marker}", marker)):
        refused = http.post(f"/v1/memory_stores/{store.id}/memories", json={"path": path, "content": content})
        assert refused.status_code in (400, 409), refused.text
    moved = http.post(f"/v1/memory_stores/{store.id}/memories", json={"path": f"/dir/{marker}/a.md", "content": "b"})
    assert moved.status_code == 200, moved.text
    session_with(client, {"memory_store_id": store.id, "instructions": f"ask {marker} first"})
    # Read back, so that it is in the caches, and in what is asked for, too.
    list(memories.list(store.id, path_prefix=f"/{marker}/", view="full"))
    list(memories.list(store.id, view="full"))
    list(stores.memory_versions.list(store.id, view="full"))
    return store.id


def files_with(directory: Path, text: str) -> list[str]:
    """The files and directories below one that hold the text, in their bytes or their names."""
    wanted, found = text.encode(), []
    for parent, directories, names in os.walk(directory):
        for name in [*directories, *names]:
            file = Path(parent) / name
            try:
                # A directory and a socket have no bytes.
                held = text in str(file.relative_to(directory)) or (file.is_file() and wanted in file.read_bytes())
            except FileNotFoundError:
                continue  # It went while we looked.
            if held:
                found.append(str(file.relative_to(directory)))
    return sorted(found)


def bucket_of(environment: dict[str, str]) -> str:
    """The bucket of `MEMSTORE_BLOB_URL`."""
    return urlsplit(environment["MEMSTORE_BLOB_URL"]).netloc


def endpoint_of(environment: dict[str, str]) -> S3Endpoint:
    """The S3 server of an environment."""
    return S3Endpoint(
        environment["MEMSTORE_S3_ENDPOINT_URL"], environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]
    )


def object_versions(environment: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    """Key and bytes of every object version in the bucket; delete markers too, without bytes."""
    bucket = bucket_of(environment)
    with endpoint_of(environment).client() as s3:
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            for entry in page.get("Versions", ()):
                got = s3.get_object(Bucket=bucket, Key=entry["Key"], VersionId=entry["VersionId"])
                yield entry["Key"], got["Body"].read()
            for entry in page.get("DeleteMarkers", ()):
                yield entry["Key"], b""


def database_directory(environment: dict[str, str]) -> Path | None:
    """Where PostgreSQL keeps the files of this database, all written out; None if that is another machine's."""
    if URL_VARIABLE in os.environ:
        return None
    url = environment["MEMSTORE_DATABASE_URL"]
    execute(url, "CHECKPOINT")
    number = execute(url, "SELECT oid FROM pg_database WHERE datname = current_database()")
    return Path(parse_qs(urlsplit(url).query)["host"][0]) / "data" / "base" / number


def places_with(server: Server, marker: str) -> list[str]:
    """Every place of a deployment, its log included, in whose raw bytes the text is."""
    environment = server.environment
    found = [f"data: {name}" for name in files_with(Path(environment["MEMSTORE_DATA_DIR"]), marker)]
    if marker.encode() in server.log.read_bytes():
        found.append("log")
    if "MEMSTORE_DATABASE_URL" in environment:
        found += [f"object {key}" for key, content in object_versions(environment) if marker.encode() in content]
        directory = database_directory(environment)
        if directory is not None:
            found += [f"database: {name}" for name in files_with(directory, marker)]
    return found
