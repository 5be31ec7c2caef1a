"""What a whole import and a whole export take at the bound that the documentation states; the kernel counts."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backup.deployments import command, peak_of
from tests.support.servers import Server, serve
from tests.transfer.archives import tar_of
from tests.transfer.test_bounds import HEADER, TIME, manifest

MEBI = 1024 * 1024
MEMORIES, VERSIONS, CONTENTS = 10_000, 100_000, 1_000
"""The limits of a store and of an import; every path is nearly as long as one may be, and each version has another."""
IMPORT_BYTES = 384 * MEBI
EXPORT_BYTES = 128 * MEBI
"""Above what the process had. docs/reference/limits.md allows an import 512 MiB: each content of its own takes some."""


def path(memory: int, change: int) -> str:
    return "/" + "/".join([f"{memory:05}-{change:02}", *["d" * 53] * 18])


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive_at_the_bound(tmp_path_factory.mktemp("bound") / "bound.tar", CONTENTS)


def archive_at_the_bound(file: Path, number: int) -> Path:
    """An export at the bound, with so many different contents."""
    contents = [b"%d" % each for each in range(number)]
    digests = [hashlib.sha256(content).hexdigest() for content in contents]
    files = {f"contents/{digest}": content for digest, content in zip(digests, contents, strict=True)}
    lines, memories = [], []
    for seq in range(1, VERSIONS + 1):
        change, memory = divmod(seq - 1, MEMORIES)
        content, digest, name = contents[seq % number], digests[seq % number], path(memory, change)
        lines.append(
            f'{{"seq":{seq},"operation":"{"modified" if change else "created"}","path":"{name}","sha256":"{digest}",'
            f'"size":{len(content)},"memory_id":"mem_{memory}","version_id":"memver_{seq}","created_at":"{TIME}",'
            '"created_by":null,"redacted_at":null,"redacted_by":null}\n'
        )
        if seq > VERSIONS - MEMORIES:
            files[f"memories{name}"] = content
            head = {
                "path": name, "file": f"memories{name}", "sha256": digest, "size": len(content), "id": f"mem_{memory}",
                "version_id": f"memver_{seq}", "created_at": TIME, "updated_at": TIME,
            }  # fmt: skip
            memories.append(head)
    body = "".join(lines).encode()
    history = {"file": "versions.jsonl", "count": VERSIONS, "sha256": hashlib.sha256(body).hexdigest()}
    end = {"versions.jsonl": body, "manifest.json": manifest(memories=memories, history=history)}
    file.write_bytes(tar_of({"export.json": HEADER, **files, **end}))
    return file


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own, whose memory nobody else uses."""
    data = tmp_path_factory.mktemp("served") / "data"
    data.mkdir(mode=0o700)
    with serve({"MEMSTORE_DATA_DIR": str(data)}) as server:
        yield server


class Peak:
    """The most memory that a process has from here on, in bytes."""

    def __init__(self, process_id: int) -> None:
        self._status = Path(f"/proc/{process_id}/status")
        Path(f"/proc/{process_id}/clear_refs").write_text("5")  # begin anew
        self._before = self._now()

    def _now(self) -> int:
        found = re.search(r"VmHWM:\s+(\d+) kB", self._status.read_text())
        assert found is not None
        return int(found[1]) * 1024

    def grown(self) -> int:
        return self._now() - self._before


def test_an_import_and_an_export_of_a_server_take_what_the_documentation_says(server: Server, archive: Path) -> None:
    with server.http() as http:
        assert http.get("/v1/memory_stores").status_code == 200
        peak = Peak(server.process.pid)
        with archive.open("rb") as file:
            answer = http.post("/v1/memory_stores/import", files={"file": ("bound.tar", file)}, timeout=300)
        assert answer.status_code == 200, answer.text
        assert answer.json()["created"] == MEMORIES
        assert peak.grown() < IMPORT_BYTES, f"{peak.grown() / MEBI:.0f} MiB"
        peak = Peak(server.process.pid)
        place = f"/v1/memory_stores/{answer.json()['memory_store_id']}/export"
        with http.stream("GET", place, params={"history": "true", "format": "tar.gz"}, timeout=300) as answer:
            size = sum(len(piece) for piece in answer.iter_bytes())
        assert size > MEBI
        assert peak.grown() < EXPORT_BYTES, f"{peak.grown() / MEBI:.0f} MiB"


def test_an_import_by_a_command_takes_what_the_documentation_says(archive: Path, tmp_path: Path) -> None:
    environment = {"MEMSTORE_DATA_DIR": str(tmp_path / "data")}
    assert command(environment, "migrate").returncode == 0
    before = peak_of(command(environment, "keys", "create", "--workspace", "default"))
    done = command(environment, "import", str(archive), "--json")
    assert json.loads(done.stdout)["created"] == MEMORIES
    grown = peak_of(done) - before
    assert grown < IMPORT_BYTES, f"{grown / MEBI:.0f} MiB"
