"""Debian's pgbouncer in front of a PostgreSQL server of the tests."""

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from tests.support.processes import Daemon, free_port, short_directory

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
RUNS_AS = "nobody"  # pgbouncer refuses to run as root


def missing() -> str | None:
    """Why there is no pgbouncer here; None if there is one."""
    return None if PROGRAM else "pgbouncer is not installed (Debian's package pgbouncer)"


def tracks_statements() -> bool:
    """Whether it keeps account of prepared statements in transaction mode, as it does from 1.21 on."""
    if PROGRAM is None:
        return False
    printed = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout
    major, minor = printed.split()[1].split(".")[:2]
    return (int(major), int(minor)) >= (1, 21)


@dataclass(frozen=True)
class Pooler:
    """A pooler that runs."""

    url: str
    """Of the database, through the pooler."""
    daemon: Daemon


@contextlib.contextmanager
def pgbouncer(
    database_url: str, *, mode: str, size: int, settings: Mapping[str, str] | None = None
) -> Iterator[Pooler]:
    """Run a pooler until the end of the context.

    database_url: of a server on a Unix socket, as `EmbeddedPostgres` makes them.
    mode: pgbouncer's `pool_mode`.
    size: the number of connections that it makes to the server.
    settings: of pgbouncer; the rest are its own defaults.
    """
    assert PROGRAM is not None, "ask `missing` first"
    url = urlsplit(database_url)
    (host,) = parse_qs(url.query)["host"]
    port = free_port()
    with short_directory() as directory:
        file = directory / "pgbouncer.ini"
        file.write_text(
            f"[databases]\n* = host={host} user=postgres\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = {mode}\ndefault_pool_size = {size}\n"
            + "".join(f"{name} = {value}\n" for name, value in (settings or {}).items())
        )
        if os.geteuid() == 0:
            shutil.chown(directory, RUNS_AS)
            shutil.chown(file, RUNS_AS)
        daemon = Daemon(
            "pgbouncer",
            [PROGRAM, file],
            log=directory / "pgbouncer.log",
            ready=lambda: _listens(port),
            user=RUNS_AS if os.geteuid() == 0 else None,
            directory=directory,
        )
        daemon.start()
        try:
            yield Pooler(f"postgresql://postgres@127.0.0.1:{port}{url.path}", daemon)
        finally:
            daemon.kill()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
