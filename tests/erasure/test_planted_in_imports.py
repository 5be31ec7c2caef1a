"""A text that was imported is in no raw byte of the deployment afterwards, and a refused import leaves none."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.erasure.planting import files_with, new_marker, places_with
from tests.support.backends import Backend
from tests.support.servers import Server, serve


def archive(marker: str, *, bad: bool) -> bytes:
    """A tar with the text in names and contents; one that no import takes, if it is bad."""
    files = {f"{marker}/notes.md": f"says {marker}".encode() * 1_000, f"about {marker}.md": b"a name"}
    if bad:
        files |= {f"../{marker}.md": b"outside", "bytes.md": b"\xff" + marker.encode()}
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return made.getvalue()


def test_imports_leave_nothing_behind_once_forgotten(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = new_marker()
    temporary, source = tmp_path / "temporary", tmp_path / "source"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    (source / "vault" / marker).mkdir(parents=True)
    (source / "vault" / marker / "note.md").write_text(f"in a vault: {marker}")
    (source / "good.tar.gz").write_bytes(archive(marker, bad=False))
    (source / "bad.tar.gz").write_bytes(archive(marker, bad=True))
    deployment = tmp_path / "deployment"
    deployment.mkdir()
    with serve(backend.environment(deployment)) as own:
        _check(own, marker, source, temporary, tmp_path / "erased.json")


def _check(own: Server, marker: str, source: Path, temporary: Path, report: Path) -> None:
    refused = own.cli("import", str(source / "bad.tar.gz"), "--name", f"Bad {marker}", "--json", check=False)
    assert refused.returncode == 1, refused.stdout + refused.stderr
    with own.http() as http, (source / "bad.tar.gz").open("rb") as file:
        answer = http.post("/v1/memory_stores/import", files={"file": ("bad.tar.gz", file)})
        assert answer.json()["memory_store_id"] is None, answer.text
    assert places_with(own, marker) == [], "a refused import leaves nothing"
    assert files_with(temporary, marker) == []

    stores = [
        json.loads(own.cli("import", str(place), "--name", f"Of {marker}", "--json").stdout)["memory_store_id"]
        for place in (source / "vault", source / "good.tar.gz")
    ]
    with own.http() as http, (source / "good.tar.gz").open("rb") as file:
        answer = http.post("/v1/memory_stores/import", files={"file": ("good.tar.gz", file)})
        assert answer.status_code == 200, answer.text
        stores.append(answer.json()["memory_store_id"])
    partial = own.cli("import", str(source / "bad.tar.gz"), "--partial", "--json", check=False)
    stores.append(json.loads(partial.stdout)["memory_store_id"])
    assert places_with(own, marker)
    assert files_with(temporary, marker) == []
    chosen = [argument for store in stores for argument in ("--store", store)]
    own.cli("forget", *chosen, "--yes", "--report", str(report))
    assert places_with(own, marker) == []
    assert "Nothing is left of 4 stores" in own.cli("forget", "verify", str(report), "--contains", marker).stdout
