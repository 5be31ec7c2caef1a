"""The product as its users run it: `memstore migrate`, `memstore keys create`, `memstore serve`."""

import http.client
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.bench import dataset
from scripts.bench.dataset import Shape
from scripts.bench.errors import MeasurementError
from scripts.bench.load import Target
from scripts.bench.machine import Cpus
from scripts.bench.postgres import Database
from scripts.bench.processes import free_port, run, running, wait_until_ready

_MEMSTORE = str(Path(sys.executable).with_name("memstore"))
_DRAIN_SECONDS = 120.0

HEADERS = {"anthropic-version": "2026-10-21", "anthropic-beta": "agent-memory-2026-07-22"}


class Caller:
    """A plain client on one kept-alive connection: the least a Python program pays for a request."""

    def __init__(self, port: int, api_key: str = "none") -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {**HEADERS, "x-api-key": api_key}

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def get(self, path: str) -> bytes:
        """The body of a 200.

        Raises:
            MeasurementError: any other answer.
        """
        return self._call("GET", path, None)

    def post(self, path: str, body: bytes) -> bytes:
        """The same for a JSON body."""
        return self._call("POST", path, body)

    def _call(self, method: str, path: str, body: bytes | None) -> bytes:
        headers = self._headers if body is None else {**self._headers, "content-type": "application/json"}
        self._connection.request(method, path, body=body, headers=headers)
        response = self._connection.getresponse()
        answer = response.read()
        if response.status != http.client.OK:
            raise MeasurementError(f"{method} {path} answered {response.status}: {answer[:300]!r}")
        return answer


@dataclass(frozen=True, slots=True)
class Installation:
    """A migrated and filled database, its blob store, and a key; no server runs yet."""

    directory: Path
    environment: Mapping[str, str]
    shape: Shape
    workspace_id: str
    api_key: str
    database: Database | None
    """None: SQLite."""

    @property
    def sqlite_file(self) -> Path:
        """Where the embedded database is."""
        return self.directory / "memstore.db"

    @property
    def blob_directory(self) -> Path:
        """Where blobs are, unless they are on S3."""
        return self.directory / "blobs"

    def memory_paths(self) -> list[str]:
        """URL paths of the readable memories, in the order of `dataset.targets`."""
        return [
            f"{dataset.store_path(store)}/memories/{dataset.memory_id(self.shape, store, memory)}"
            for store, memory in dataset.targets(self.shape)
        ]


def install(
    directory: Path, shape: Shape, *, database: Database | None, settings: Mapping[str, str] | None = None
) -> Installation:
    """Migrate, make a key, fill, and let the sweeper move the filled content to the blob store."""
    directory.mkdir()
    environment = {"MEMSTORE_DATA_DIR": str(directory), **(settings or {})}
    if database is not None:
        environment["MEMSTORE_DATABASE_URL"] = database.url

    def memstore(*arguments: str) -> str:
        return run([_MEMSTORE, *arguments], directory=directory, environment=environment, seconds=600)

    memstore("migrate")
    key: dict[str, Any] = json.loads(memstore("keys", "create", "--workspace", "bench", "--json"))
    made = Installation(directory, environment, shape, key["workspace_id"], key["secret"], database)
    owner = {"workspace_id": key["workspace_id"], "api_key_id": key["id"]}
    if database is None:
        dataset.fill_sqlite(made.sqlite_file, shape, **owner)
    else:
        dataset.fill_postgres(database, shape, **owner)
    memstore("sweep")
    if database is not None:
        # What autovacuum would come to do after so many rows; here it must not come in the middle of a round.
        database.execute("VACUUM (FREEZE, ANALYZE)")
    return made


@dataclass(frozen=True, slots=True)
class Product:
    """A running server."""

    installation: Installation
    port: int
    pid: int

    def caller(self) -> Caller:
        """A plain client with the installation's key."""
        return Caller(self.port, self.installation.api_key)

    def target(self, paths: Path, *, content_bytes: int = 0) -> Target:
        """What wrk needs."""
        return Target(self.port, paths, self.installation.api_key, content_bytes)

    def metrics(self) -> dict[str, float]:
        """Prometheus samples without labels, by name."""
        with self.caller() as caller:
            text = caller.get("/metrics").decode()
        samples = (line.split() for line in text.splitlines() if line and line[0] != "#" and "{" not in line)
        return {sample[0]: float(sample[1]) for sample in samples}

    def drain_staged(self) -> None:
        """`drain`, for those who don't ask how long it took."""
        self.drain()

    def drain(self) -> float:
        """Wait until nothing is staged; the seconds it took.

        Raises:
            MeasurementError: the mover does not get through.
        """
        began = time.monotonic()
        while (waited := time.monotonic() - began) < _DRAIN_SECONDS:
            if self.metrics()["memstore_staged_blobs"] == 0:
                return waited
            time.sleep(0.05)
        raise MeasurementError(f"content is still staged {_DRAIN_SECONDS:.0f} s after the last write")


@contextmanager
def serve(installation: Installation, *, cpus: Cpus) -> Iterator[Product]:
    """Run `memstore serve` with one worker for the length of the block."""
    port = free_port()
    log = installation.directory / "serve.log"
    command = [_MEMSTORE, "serve", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with running(
        command, directory=installation.directory, log=log, environment=installation.environment, cpus=cpus
    ) as process:
        wait_until_ready(port, "/readyz", process, log)
        yield Product(installation, port, process.pid)
