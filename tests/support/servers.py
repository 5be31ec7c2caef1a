"""Memstore as a process of its own: started, asked, killed and started again, as an administrator would."""

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import anthropic
import httpx2

from tests.support.forks import MEMSTORE, memstore, run_memstore
from tests.support.processes import POLL_SECONDS, Daemon, ProcessError, answers, free_port

API_VERSION = "2023-06-01"
LOG_SECONDS = 60.0
READY_PATH = "/readyz"
STOPPED = (0, -signal.SIGTERM)
"""The exit statuses of a server that did what SIGTERM asks."""


@dataclass
class Server:
    """A `memstore serve` on its own port, with its own settings."""

    base_url: str
    api_key: str
    environment: dict[str, str]
    daemon: Daemon

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process of the latest start; with several workers, their parent."""
        return self.daemon.process

    @property
    def log(self) -> Path:
        """Everything the server printed, over all its starts."""
        return self.daemon.log

    def client(self, **options: Any) -> anthropic.Anthropic:
        """The official SDK, pointed at this server."""
        return anthropic.Anthropic(**{"api_key": self.api_key, "base_url": self.base_url, **options})

    def http(self) -> httpx2.Client:
        """A plain HTTP client with the headers every call needs."""
        return httpx2.Client(
            base_url=self.base_url,
            headers={"x-api-key": self.api_key, "anthropic-version": API_VERSION},
            timeout=30,
            trust_env=False,  # a proxy in the environment is not for the loopback address
        )

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `memstore` with this server's settings.

        check: raise `ProcessError`, with what it printed, if its exit status is not 0.
        """
        return run_cli(self.environment, *arguments, check=check)

    def log_with(self, *texts: str) -> str:
        """The log, once all these texts are in it: a line about an answer is written after the answer."""
        deadline = time.monotonic() + LOG_SECONDS
        while missing := [text for text in texts if text not in (log := self.log.read_text())]:
            if time.monotonic() > deadline:
                raise ProcessError(f"{missing} did not come into the log\n{self.daemon.log_tail()}")
            time.sleep(POLL_SECONDS)
        return log

    def kill(self) -> None:
        """End the server and its workers by SIGKILL."""
        self.daemon.kill()

    def stop(self) -> int:
        """End the server by SIGTERM, which drains it; its exit status."""
        return self.daemon.stop()

    def start(self) -> None:
        """Start again on the same port with the same settings; returns when /readyz answers 200."""
        self.daemon.start()


def run_cli(environment: Mapping[str, str], *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `memstore` with these settings; see `Server.cli`."""
    done = run_memstore(
        arguments, environment=whole_environment(environment), directory=Path(environment["MEMSTORE_DATA_DIR"])
    )
    if check and done.returncode != 0:
        raise ProcessError(
            f"memstore {' '.join(arguments)} ended with status {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done


@contextlib.contextmanager
def serve(
    environment: Mapping[str, str],
    *,
    workers: int = 1,
    port: int | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Run a server until the end of the context; an error inside it carries the end of the server's log.

    environment: from `Backend.environment`; several servers may share one.
    settings: more MEMSTORE_* variables, which win over those.
    """
    variables = {**environment, **(settings or {})}
    api_key = variables.setdefault("MEMSTORE_BOOTSTRAP_API_KEY", f"test-{secrets.token_urlsafe(24)}")
    if "MEMSTORE_DATABASE_URL" in variables:
        run_cli(variables, "migrate")  # without one the database is the embedded SQLite, which serve migrates
    port = port or free_port()
    data = Path(variables["MEMSTORE_DATA_DIR"])
    arguments = ["serve", "--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)]

    def fork(output: IO[bytes]) -> "subprocess.Popen[bytes]":
        return memstore(arguments, environment=whole_environment(variables), directory=data, stdout=output)

    daemon = Daemon(
        f"memstore on port {port}",
        [MEMSTORE, *arguments],
        log=data.with_name(f"{data.name}-{port}.log"),
        ready=lambda: answers(port, READY_PATH),
        environment=whole_environment(variables),
        directory=data,  # not the checkout, whose .env is the developer's
        start=fork if workers == 1 else None,
    )
    daemon.start()
    try:
        yield Server(f"http://127.0.0.1:{port}", api_key, variables, daemon)
    except Exception as error:
        error.add_note(f"--- end of the log of {daemon.name}\n{daemon.log_tail()}")
        raise
    finally:
        status = daemon.stop() if daemon in Daemon.running else 0
    if status not in STOPPED:
        raise ProcessError(f"{daemon.name} ended with status {status}\n{daemon.log_tail()}")


def whole_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The settings over what is around us, of which nothing may change how Memstore behaves."""
    around = {name: value for name, value in os.environ.items() if not name.startswith(("MEMSTORE_", "AWS_"))}
    return {**around, "AWS_EC2_METADATA_DISABLED": "true", "PYTHONUNBUFFERED": "1", **settings}
