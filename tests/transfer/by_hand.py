"""Memory at the bounds whose measurement takes too long for a test: `python -m tests.transfer.by_hand WHAT…`.

- `contents`: an import of 100,000 versions that have 100,000 different contents, by a command on SQLite
- `postgres`: the same on PostgreSQL and S3, and the archive of `test_memory.py`
- `two`: two imports at once in one server, of the archive of `test_memory.py`
- `pull NUMBER`: a pull of a store with so many versions, each with a content of its own, read and written

It prints by how much the process grew above what it has at rest (the kernel's VmHWM). The figures, with dates, are
in docs/reference/limits.md. One of them takes some minutes.
"""

import json
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.backup.deployments import command, peak_of
from tests.storage.outside import digest
from tests.support.backends import POSTGRES_S3, Backend, Services
from tests.support.servers import serve
from tests.transfer.test_memory import CONTENTS, MEBI, MEMORIES, VERSIONS, Peak, archive_at_the_bound
from tests.transfer.test_pull_hostile import STORE, head, version

_PAGE = 20


def by_a_command(environment: Mapping[str, str], *arguments: str) -> str:
    """How a command grows."""
    assert command(environment, "migrate").returncode == 0
    before = peak_of(command(environment, "keys", "create", "--workspace", "default"))
    return f"{(peak_of(command(environment, *arguments, seconds=7_200)) - before) / MEBI:.0f} MiB"


def contents(directory: Path) -> str:
    """An import of as many contents as versions, on SQLite."""
    file = archive_at_the_bound(directory / "all.tar", VERSIONS)
    return by_a_command({"MEMSTORE_DATA_DIR": str(directory / "data")}, "import", str(file))


def postgres(directory: Path) -> str:
    """Imports of few and of many contents, on PostgreSQL and S3."""
    grown = {}
    with Services() as services:
        for number in (CONTENTS, VERSIONS):
            file = archive_at_the_bound(directory / f"{number}.tar", number)
            environment = Backend(POSTGRES_S3, services).environment(directory)
            grown[number] = by_a_command(environment, "import", str(file))
    return json.dumps(grown)


def two(directory: Path) -> str:
    """Two imports at once in one server."""
    file = archive_at_the_bound(directory / "bound.tar", CONTENTS)
    (directory / "data").mkdir(mode=0o700)
    with serve({"MEMSTORE_DATA_DIR": str(directory / "data")}) as server:

        def send() -> int:
            with server.http() as http, file.open("rb") as opened:
                answer = http.post("/v1/memory_stores/import", files={"file": ("bound.tar", opened)}, timeout=600)
            assert answer.status_code == 200, answer.text
            return int(answer.json()["created"])

        peak = Peak(server.process.pid)
        with ThreadPoolExecutor(2) as threads:
            assert list(threads.map(lambda _: send(), range(2))) == [MEMORIES] * 2
        return f"{peak.grown() / MEBI:.0f} MiB"


@contextmanager
def far_server(number: int) -> Iterator[str]:
    """A server of the same API with a store of so many versions; its URL."""
    many = max(1, number // MEMORIES)

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            place = urlsplit(self.path)
            start = int(parse_qs(place.query).get("page", ["0"])[0])
            what = place.path.rpartition("/")[2]
            found: object = STORE
            if what == "memory_stores":  # where the store is looked for by its name
                found = {"data": [STORE], "next_page": None}
            elif what == "memory_versions":
                items = [made(number - each) for each in range(start, min(start + _PAGE, number))]
                found = {"data": items, "next_page": str(start + _PAGE) if start + _PAGE < number else None}
            elif what == "memories":
                last = min(start + _PAGE, number // many)
                items = [newest(each) for each in range(start, last)]
                found = {"data": items, "next_page": str(last) if last < number // many else None}
            body = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    def made(seq: int) -> object:
        change, memory = divmod(seq - 1, number // many)
        return version(
            seq, memory_id=f"mem_{memory}", path=f"/{memory}.md", operation="modified" if change else "created"
        )

    def newest(memory: int) -> object:
        seq = number - number // many + memory + 1
        text = f"text {seq}"
        return head(
            memory,
            path=f"/{memory}.md",
            memory_version_id=f"memver_{seq}",
            content=text,
            content_sha256=digest(text),
            content_size_bytes=len(text),
        )

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def pull(directory: Path, number: int) -> str:
    """A pull of a store with so many versions."""
    with far_server(number) as url:
        environment = {"MEMSTORE_DATA_DIR": str(directory / "data"), "ANTHROPIC_API_KEY": "key"}
        return by_a_command(environment, "pull", "memstore_far", "--from", url)


def main(arguments: list[str]) -> None:
    """Measure what is named."""
    names = iter(arguments)
    for name in names:
        with tempfile.TemporaryDirectory() as directory:
            place = Path(directory)
            if name == "pull":
                grown = pull(place, int(next(names)))
            else:
                grown = {"contents": contents, "postgres": postgres, "two": two}[name](place)
        sys.stdout.write(f"{name}: {grown}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
