"""The routes that take stores out and in."""

import json
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from tests.support.servers import Server
from tests.transfer.archives import tar_of
from tests.transfer.test_bounds import FOREIGN, HEADER, zip_by
from tests.transfer.test_round_trips import comparable
from tests.transfer.test_zip_names import raw_zip

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
        (b"", "multipart/form-data; boundary=" + "x" * 30_000, "the boundary has 30,000 bytes; at most 70"),
        (b"", "multipart/form-data; boundary=", "must be multipart/form-data"),
        (b"", "multipart/form-data", "must be multipart/form-data"),
        (b"--x\r\n\r\ntext\r\n--x--\r\n", "multipart/form-data; boundary=x", "'' is no field of this form"),
        (b"--x\r\n" + b"a: b\r\n" * 5_000, "multipart/form-data; boundary=x", "no valid multipart"),
        (b"--x\r\nContent-Disposition: " + b"f" * 60_000, "multipart/form-data; boundary=x", "no valid multipart"),
    ],
)
def test_what_is_no_form_is_refused(http: httpx2.Client, body: bytes, kind: str, why: str) -> None:
    answer = http.post(IMPORT, content=body, headers={"content-type": kind})
    assert answer.status_code == 400
    assert why in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"other": "x"}, "'other' is no field of this form; there are file, name, into, partial, name_encoding"),
        ({"name_encoding": "rot13"}, "name_encoding: 'rot13' is no encoding of file names"),
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


def test_a_boundary_of_any_size_is_refused(http: httpx2.Client) -> None:
    kind = "multipart/form-data; boundary=" + "x" * 100_000
    assert 400 <= http.post(IMPORT, content=b"", headers={"content-type": kind}).status_code < 500


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (zip_by(14, b"rubbish", 10), "packed by the method 14 (LZMA), which is not read"),
        (zip_by(12, b"rubbish", 10), "packed by the method 12 (bzip2), which is not read"),
        (zip_by(8, b"rubbish", 10), "the archive is damaged or cut off: 'bomb.md'"),
        (b"PK\x05\x06" + bytes(3), "no central directory"),
        (b"\x1f\x8b\x08\0" + bytes(600), "damaged or cut off"),
        (tar_of({"export.json": HEADER, "manifest.json": b"[" * 90_000}), "manifest.json"),
    ],
)
def test_a_damaged_archive_is_a_400_that_says_what_is_wrong(http: httpx2.Client, data: bytes, why: str) -> None:
    answer = send(http, data)
    assert answer.status_code == 400, answer.text
    assert why in answer.json()["error"]["message"]


def test_a_vault_with_an_export_json_of_its_own_comes_in(http: httpx2.Client, client: anthropic.Anthropic) -> None:
    for content in FOREIGN.values():
        result = send(http, tar_of({"export.json": content, "a.md": b"a"})).json()
        assert result["created"] == 2, result
        client.beta.memory_stores.delete(result["memory_store_id"])


def test_the_encoding_of_names_is_said_over_http_and_on_the_command_line(
    http: httpx2.Client, server: Server, store: Store, client: anthropic.Anthropic, tmp_path: Path
) -> None:
    data = raw_zip("\u30bd\u30fc\u30b9\\\u8868.md".encode("cp932"))
    refused = send(http, data).json()
    assert refused["memory_store_id"] is None
    assert "name_encoding" in refused["skipped"][0]["reason"]
    assert send(http, data, into=store.id, name_encoding="cp932").json()["created"] == 1
    assert [item.path for item in client.beta.memory_stores.memories.list(store.id)] == [
        "/\u30bd\u30fc\u30b9/\u8868.md"
    ]
    (tmp_path / "old.zip").write_bytes(data)
    first = server.cli("import", str(tmp_path / "old.zip"), check=False)
    assert (first.returncode, "--name-encoding" in first.stderr) == (1, True)
    said = json.loads(server.cli("import", str(tmp_path / "old.zip"), "--name-encoding", "cp932", "--json").stdout)
    assert said["created"] == 1
    client.beta.memory_stores.delete(said["memory_store_id"])
    wrong = server.cli("import", str(tmp_path / "old.zip"), "--name-encoding", "klingon", check=False)
    assert "name_encoding: 'klingon' is no encoding" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_a_path_with_a_backslash_survives_a_zip(http: httpx2.Client, store: Store, client: anthropic.Anthropic) -> None:
    memories = client.beta.memory_stores.memories
    for path, content in (("/a\\b.md", "one"), ("/a/b.md", "two"), ("/c\\d.md", "one")):
        memories.create(store.id, path=path, content=content)
    data = http.get(f"/v1/memory_stores/{store.id}/export", params={"format": "zip", "history": "true"}).content
    result = send(http, data).json()
    assert (result["created"], result["skipped"]) == (3, [])
    copies = memories.list(result["memory_store_id"], view="full")
    found = {item.path: item.content for item in copies if item.type == "memory"}
    assert found == {"/a\\b.md": "one", "/a/b.md": "two", "/c\\d.md": "one"}
    client.beta.memory_stores.delete(result["memory_store_id"])
