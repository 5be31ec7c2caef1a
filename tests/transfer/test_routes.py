"""The routes that take stores out and in."""

import json
import tarfile
from io import BytesIO
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from tests.support.servers import Server
from tests.transfer.archives import tar_of
from tests.transfer.test_round_trips import comparable

IMPORT = "/v1/memory_stores/import"


def send(http: httpx2.Client, data: bytes, **fields: str) -> httpx2.Response:
    return http.post(IMPORT, files={"file": ("notes.tar", data)}, data=fields)


@pytest.mark.parametrize("archive_format", ["tar", "tar.gz", "tar.zst", "zip"])
def test_a_store_goes_out_and_comes_back_over_http(
    client: anthropic.Anthropic, http: httpx2.Client, store: Store, archive_format: str
) -> None:
    memories = client.beta.memory_stores.memories
    for number in range(30):
        memories.create(store.id, path=f"/notes/{number}.md", content=f"note {number}\n" * 50)
    query = {"format": archive_format, "history": "true"}
    answer = http.get(f"/v1/memory_stores/{store.id}/export", params=query)
    assert answer.status_code == 200
    assert "content-length" not in answer.headers
    imported = send(http, answer.content, name="A copy")
    assert imported.status_code == 200, imported.text
    result = imported.json()
    assert (result["created"], result["skipped"]) == (30, [])
    copy = client.beta.memory_stores.retrieve(result["memory_store_id"])
    assert copy.name == "A copy"
    again = http.get(f"/v1/memory_stores/{copy.id}/export", params=query).content
    before, after = comparable(answer.content, times=True), comparable(again, times=True)
    assert after["manifest"]["memory_store"].pop("name") == "A copy"
    before["manifest"]["memory_store"].pop("name")
    assert after == before
    client.beta.memory_stores.delete(copy.id)


def test_what_is_refused_is_listed(http: httpx2.Client, client: anthropic.Anthropic) -> None:
    data = tar_of({"good.md": b"good", "../evil.md": b"evil"})
    refused = send(http, data).json()
    assert refused["memory_store_id"] is None
    assert [skip["path"] for skip in refused["skipped"]] == ["../evil.md"]
    taken = send(http, data, partial="true").json()
    assert taken["created"] == 1
    client.beta.memory_stores.delete(taken["memory_store_id"])


def test_into_a_store(http: httpx2.Client, store: Store, client: anthropic.Anthropic) -> None:
    result = send(http, tar_of({"a.md": b"a"}), into=store.id).json()
    assert result == {"memory_store_id": store.id, "created": 1, "skipped": []}
    assert [item.path for item in client.beta.memory_stores.memories.list(store.id)] == ["/a.md"]


@pytest.mark.parametrize(
    ("body", "kind", "why"),
    [
        (b"{}", "application/json", "must be multipart/form-data"),
        (b"--x\r\n", "multipart/form-data; boundary=x", "ends before its last boundary"),
        (b"nonsense", "multipart/form-data; boundary=x", "no valid multipart"),
        (b"--x--\r\n", "multipart/form-data; boundary=x", "file: is required"),
    ],
)
def test_what_is_no_form_is_refused(http: httpx2.Client, body: bytes, kind: str, why: str) -> None:
    answer = http.post(IMPORT, content=body, headers={"content-type": kind})
    assert answer.status_code == 400
    assert why in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"other": "x"}, "other: is no field"),
        ({"partial": "perhaps"}, "partial: must be"),
        ({"name": "a", "into": "b"}, "goes with a new store"),
        ({"name": "x" * 300}, "name: is 300 characters"),
        ({"into": "x" * 5_000}, "into: is longer than"),
    ],
)
def test_a_field_that_can_not_be_used_is_refused(http: httpx2.Client, fields: dict[str, Any], why: str) -> None:
    answer = send(http, tar_of({"a.md": b"a"}), **fields)
    assert answer.status_code == 400
    assert why in answer.json()["error"]["message"]


def test_another_workspaces_store_is_not_there(http: httpx2.Client, server: Server, store: Store) -> None:
    other = json.loads(server.cli("keys", "create", "--workspace", "elsewhere", "--json").stdout)
    headers = {"x-api-key": other["secret"]}
    assert http.get(f"/v1/memory_stores/{store.id}/export", headers=headers).status_code == 404
    answer = http.post(IMPORT, files={"file": ("a.tar", tar_of({}))}, data={"into": store.id}, headers=headers)
    assert answer.status_code == 404


def test_an_export_is_a_tar_for_everybody(http: httpx2.Client, store: Store, client: anthropic.Anthropic) -> None:
    client.beta.memory_stores.memories.create(store.id, path="/a.md", content="a")
    with tarfile.open(fileobj=BytesIO(http.get(f"/v1/memory_stores/{store.id}/export").content)) as archive:
        assert archive.getnames() == ["export.json", "memories/a.md", "manifest.json"]
