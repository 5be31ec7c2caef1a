"""A server with SQLite, and the commands run in this process, which costs a tenth of starting each."""

import io
import json
import os
import shlex
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic
import pytest

from app.cli import main as program
from app.cli import terminal
from tests.support.backends import SQLITE_DISK, Backend, Services
from tests.support.servers import Server, serve


@dataclass(frozen=True)
class Done:
    """What a command did."""

    status: int
    out: str
    err: str


@dataclass
class Commands:
    """Runs commands with the settings of one server, in a directory of their own."""

    server: Server
    directory: Path
    variables: dict[str, str] = field(default_factory=dict)
    """Over the server's settings; all that commands see of `MEMSTORE_*`."""

    def run(self, line: str, *more: str) -> Done:
        """Run a command line, as a shell would split it, and further arguments as they are."""
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", newline="") for _ in range(2))
        status = 0
        mask = os.umask(0o077)
        with pytest.MonkeyPatch.context() as patched, redirect_stdout(out), redirect_stderr(err):
            for name in [name for name in os.environ if name.startswith(("MEMSTORE_", "AWS_"))]:
                patched.delenv(name)
            known = {**self.server.environment, "MEMSTORE_BASE_URL": self.server.base_url, **self.variables}
            for name, value in known.items():
                if value:
                    patched.setenv(name, value)
            patched.chdir(self.directory)
            try:
                program.main([*shlex.split(line), *more])
            except SystemExit as ended:
                status = int(ended.code or 0)
            finally:
                os.umask(mask)  # Commands set their own, which is this process's.
        out.flush()
        err.flush()
        return Done(status, *(stream.buffer.getvalue().decode() for stream in (out, err)))

    def out(self, line: str, *more: str) -> str:
        """What it prints, if it succeeds."""
        done = self.run(line, *more)
        assert done.status == 0, done
        return done.out

    def json(self, line: str, *more: str) -> Any:
        """What it prints as JSON."""
        return json.loads(self.out(line, *more, "--json"))

    def refused(self, line: str, *more: str) -> str:
        """The sentence of a refusal."""
        done = self.run(line, *more)
        assert (done.status, done.out) == (2, ""), done
        return done.err

    def seen(self, line: str, *more: str, columns: int = 80) -> str:
        """What a person sees on a terminal of this width, without colour."""
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(terminal, "is_terminal", lambda: True)
            patched.setenv("NO_COLOR", "1")
            patched.setenv("PAGER", "")
            patched.setenv("COLUMNS", str(columns))
            return self.out(line, *more)


@pytest.fixture(scope="session")
def server(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on SQLite for these tests alone, in which a name means one store."""
    with serve(Backend(SQLITE_DISK, services).environment(tmp_path_factory.mktemp("commands"))) as server:
        yield server


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[anthropic.Anthropic]:
    with server.client() as made:
        yield made


@pytest.fixture
def commands(server: Server, tmp_path: Path) -> Commands:
    """Commands with nothing in the environment but the server's settings and where it listens."""
    return Commands(server, tmp_path)
