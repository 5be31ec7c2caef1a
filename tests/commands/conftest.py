"""A server with SQLite, and the commands run in this process, which costs a tenth of starting each."""

import json
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import pytest

from app.cli import main as program
from app.cli import terminal
from tests.support.servers import Server, serve


@dataclass(frozen=True)
class Done:
    """What a command did."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Commands:
    """Runs commands with the settings of one server."""

    server: Server
    patched: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def run(self, line: str, *more: str) -> Done:
        """Run a command line, as a shell would split it, and further arguments as they are."""
        self.capsys.readouterr()
        status = 0
        try:
            program.main([*shlex.split(line), *more])
        except SystemExit as ended:
            status = int(ended.code or 0)
        return Done(status, *self.capsys.readouterr())

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
        with self.patched.context() as here:
            here.setattr(terminal, "is_terminal", lambda: True)
            here.setenv("NO_COLOR", "1")
            here.setenv("PAGER", "")
            here.setenv("COLUMNS", str(columns))
            return self.out(line, *more)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("deployment")
    with serve({"MEMSTORE_DATA_DIR": str(data)}) as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[anthropic.Anthropic]:
    with server.client() as made:
        yield made


@pytest.fixture
def commands(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Commands]:
    """Commands with nothing in the environment but the server's settings and where it listens."""
    for name in [name for name in os.environ if name.startswith(("MEMSTORE_", "AWS_"))]:
        monkeypatch.delenv(name)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MEMSTORE_BASE_URL", server.base_url)
    monkeypatch.chdir(tmp_path)
    mask = os.umask(0o077)
    os.umask(mask)
    yield Commands(server, monkeypatch, capsys)
    os.umask(mask)  # Commands set their own, which is this process's.
