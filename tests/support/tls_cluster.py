"""Debian's PostgreSQL with TLS and passwords, for tests of what the wheel's server can't do."""

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Self
from urllib.parse import quote

from tests.support.postgres import COMMAND_SECONDS, ROOT_RUNS_AS, execute
from tests.support.processes import Daemon, free_port, group_of

PASSWORD = "the superuser's"


def binaries() -> Path | None:
    """The directory of the newest PostgreSQL that Debian's packages installed; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def missing() -> str | None:
    """Why there can't be such a server here; None if there can."""
    if binaries() is None:
        return "PostgreSQL is not installed (Debian's package postgresql)"
    return None if shutil.which("openssl") else "openssl is not installed"


class TlsPostgres:
    """A server on the loopback address that demands passwords, and TLS of all roles but `plain`; a context manager."""

    def __init__(self, directory: Path) -> None:
        """Make a cluster in `directory`, which must be new, empty and short."""
        programs = binaries()
        assert programs is not None, "ask `missing` first"
        self.port = free_port()
        self.certificate = _certificate(directory, "server")
        self.other_certificate = _certificate(directory, "other")
        user = ROOT_RUNS_AS if os.geteuid() == 0 else None
        secret = directory / "password"
        secret.write_text(PASSWORD)
        if user is not None:
            for path in (directory, *directory.iterdir()):
                shutil.chown(path, user)
        data = directory / "data"
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "postgres", "--auth=scram-sha-256", f"--pwfile={secret}",
             "--no-sync", "--encoding=UTF8", "--locale=C"],
            check=True, capture_output=True, timeout=COMMAND_SECONDS, cwd=directory,
            user=user, group=group_of(user), extra_groups=None if user is None else [],
        )  # fmt: skip
        # The tests' own psql, which is the wheel's, speaks no TLS.
        rules = ("host all postgres 127.0.0.1/32 scram-sha-256", "hostssl all all 127.0.0.1/32 scram-sha-256")
        (data / "pg_hba.conf").write_text("".join(f"{rule}\n" for rule in rules))
        settings = {
            "listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": "", "fsync": "off",
            "ssl": "on", "ssl_cert_file": str(self.certificate), "ssl_key_file": str(directory / "server.key"),
        }  # fmt: skip
        self.daemon = Daemon(
            "PostgreSQL with TLS",
            [programs / "postgres", "-D", data, *(f"--{name}={value}" for name, value in settings.items())],
            log=directory / "postgres.log",
            ready=lambda: subprocess.run(
                [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], timeout=COMMAND_SECONDS
            ).returncode == 0,
            directory=directory,
            user=user,
            stop_signal=signal.SIGINT,
        )  # fmt: skip

    def url(
        self,
        *,
        user: str = "postgres",
        password: str = PASSWORD,
        host: str = "127.0.0.1",
        database: str = "postgres",
        keys: str = "",
    ) -> str:
        """A URL; keys: what stands after its `?`."""
        return f"postgresql://{user}:{quote(password)}@{host}:{self.port}/{database}{keys and '?'}{keys}"

    def execute(self, *statements: str, database: str = "postgres") -> None:
        """Run SQL as the superuser, each statement by itself."""
        for statement in statements:
            execute(self.url(database=database), statement)

    def __enter__(self) -> Self:
        self.daemon.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.daemon.kill()


def _certificate(directory: Path, name: str) -> Path:
    """A certificate for 127.0.0.1 that signs itself, and its key beside it."""
    certificate = directory / f"{name}.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(directory / f"{name}.key"), "-out", str(certificate)],
        check=True, capture_output=True, timeout=COMMAND_SECONDS,
    )  # fmt: skip
    (directory / f"{name}.key").chmod(0o600)
    return certificate
