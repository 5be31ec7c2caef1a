"""Processes that the benchmark starts: each has a log, and is stopped by its own id, whatever happens."""

import contextlib
import http.client
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from scripts.bench.errors import MeasurementError
from scripts.bench.machine import Cpus, on_cores

_LOG_TAIL = 3_000
_STOP_SECONDS = 20.0


def _environment(additions: Mapping[str, str]) -> dict[str, str]:
    """What a started program sees: the product's settings come from us alone."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MEMSTORE_")}
    return {**inherited, **additions}


def free_port() -> int:
    """A loopback port that nobody listens on, below those that outgoing connections are given."""
    while True:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def running(
    command: Sequence[str], *, directory: Path, log: Path, environment: Mapping[str, str], cpus: Cpus
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command for the length of the block; SIGTERM at the end, SIGKILL if that is ignored."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            on_cores(command, cpus),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(environment),
            cwd=directory,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until_ready(port: int, path: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 30) -> None:
    """Wait until `path` answers 200.

    Raises:
        MeasurementError: the process ended, or it took longer than `seconds`; with the end of its log.
    """
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            try:
                connection.request("GET", path)
                if connection.getresponse().status == http.client.OK:
                    return
            finally:
                connection.close()
        time.sleep(0.02)
    tail = log.read_text(errors="replace")[-_LOG_TAIL:]
    state = "is not ready" if process.poll() is None else f"ended with status {process.returncode}"
    raise MeasurementError(f"the server on port {port} {state}; the end of its log:\n{tail}")


def run(
    command: Sequence[str],
    *,
    seconds: float,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
    cpus: Cpus = frozenset(),
) -> str:
    """Run a command to its end and return what it printed.

    Raises:
        MeasurementError: it failed, or took longer than `seconds`.
    """
    try:
        done = subprocess.run(
            on_cores(command, cpus),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            env=_environment(environment or {}),
            cwd=directory,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MeasurementError(f"{Path(command[0]).name} took longer than {seconds:.0f} s") from None
    if done.returncode != 0:
        name, tail = Path(command[0]).name, done.stderr[-_LOG_TAIL:]
        raise MeasurementError(f"{name} ended with status {done.returncode}:\n{tail}")
    return done.stdout
