"""`memstore` as processes of their own that start in a moment: forked from a program that has imported everything.

An interpreter that starts takes two seconds of a processor to import what a command needs, and the tests run thousands
of commands and hundreds of servers. Forked processes are processes all the same, with an environment, a directory,
descriptors and a process group of their own; they can be killed, and what they do ends with them.

With MEMSTORE_TEST_EXEC=1 each is an interpreter of its own, as it is where the system can't do this, and for
whoever asks for what interpreters and libraries read when they start.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from threading import Lock
from typing import IO, Any

from tests.support.processes import START_SECONDS, short_directory

RUN_SECONDS = 120.0
MEMSTORE = Path(sys.executable).with_name("memstore")
_READ_AT_START = ("PYTHON", "OTEL_", "PROMETHEUS_", "FSSPEC_", "LD_", "LANG", "LC_")
"""How variables begin that an interpreter or a library reads when it is started or imported."""


def memstore(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path,
    stdin: int = subprocess.DEVNULL,
    stdout: IO[bytes] | int = subprocess.DEVNULL,
    stderr: IO[bytes] | int = subprocess.STDOUT,
) -> "subprocess.Popen[bytes]":
    """Start a command, in a session of its own.

    environment: all of it. stdin: DEVNULL or a descriptor. stdout, stderr: as `subprocess.Popen` takes them.
    """
    if _needs_an_interpreter(environment):
        return subprocess.Popen(
            [MEMSTORE, *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=dict(environment),
            cwd=directory,
            start_new_session=True,
        )
    return _Forked([str(MEMSTORE), *arguments], dict(environment), directory, stdin, stdout, stderr)


def run_memstore(
    arguments: Sequence[str], *, environment: Mapping[str, str], directory: Path, seconds: float = RUN_SECONDS
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end; as `subprocess.run` with `text=True`."""
    process = memstore(
        arguments, environment=environment, directory=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr, ThreadPoolExecutor(2) as pool:
        reading = [pool.submit(pipe.read) for pipe in (process.stdout, process.stderr)]
        try:
            status = process.wait(seconds)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        printed, said = (_text(read.result()) for read in reading)
    return subprocess.CompletedProcess([str(MEMSTORE), *arguments], status, printed, said)


def _text(printed: bytes) -> str:
    return printed.decode().replace("\r\n", "\n").replace("\r", "\n")


def _needs_an_interpreter(environment: Mapping[str, str]) -> bool:
    return (
        not hasattr(os, "pidfd_open")
        or bool(os.environ.get("MEMSTORE_TEST_EXEC"))
        or _read_at_start(environment) != _read_at_start(os.environ)
    )


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    found = {name: value for name, value in environment.items() if name.startswith(_READ_AT_START)}
    return found | {"PYTHONUNBUFFERED": "1"}


@cache
def _forker() -> str:
    """The socket of the program that forks; it ends with this process, and everything it started does."""
    place = str(_running.enter_context(short_directory()) / "forker")
    program = subprocess.Popen(
        [sys.executable, "-P", "-u", str(Path(__file__).with_name("forker.py")), place],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={name: value for name, value in os.environ.items() if not name.startswith(("MEMSTORE_", "AWS_"))},
    )
    assert program.stdout is not None
    ready, _, _ = select.select([program.stdout], [], [], START_SECONDS)
    assert ready, "the program that forks did not start"
    assert program.stdout.readline() == b"ready\n"
    _running.callback(_end, program)
    return place


_running = contextlib.ExitStack()
_starting = Lock()


def end_forks() -> None:
    """At the end of the run."""
    _running.close()
    _forker.cache_clear()


def _end(program: "subprocess.Popen[bytes]") -> None:
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.close()
    program.stdout.close()
    program.wait(START_SECONDS)


class _Forked(subprocess.Popen[bytes]):
    """What the tests know of a `Popen`, for a process whose parent is another one."""

    def __init__(
        self,
        arguments: list[str],
        environment: dict[str, str],
        directory: Path,
        stdin: int,
        stdout: IO[bytes] | int,
        stderr: IO[bytes] | int,
    ) -> None:
        self.args: Any = arguments
        self.returncode: Any = None
        self.stdin = self.stdout = self.stderr = None
        ours: list[int] = []
        try:
            out = self._descriptor("stdout", stdout, ours)
            err = out if stderr == subprocess.STDOUT else self._descriptor("stderr", stderr, ours)
            source = self._descriptor("stdin", stdin, ours)
            umask = os.umask(0)
            os.umask(umask)
            with _starting:
                place = _forker()
            self._connection = socket.socket(socket.AF_UNIX)
            self._connection.connect(place)
            wanted = {"arguments": arguments, "environment": environment, "directory": str(directory), "umask": umask}
            request = json.dumps(wanted).encode() + b"\n"
            sent = socket.send_fds(self._connection, [request], [source, out, err])
            self._connection.sendall(request[sent:])
        finally:
            for descriptor in ours:
                os.close(descriptor)
        self._answers = self._connection.makefile("rb")
        self.pid = int(self._answers.readline())
        self._waiting = Lock()

    def _descriptor(self, name: str, wanted: IO[bytes] | int, ours: list[int]) -> int:
        if wanted == subprocess.PIPE:
            reading, writing = os.pipe()
            setattr(self, name, os.fdopen(reading, "rb"))
            ours.append(writing)
            return writing
        if wanted == subprocess.DEVNULL:
            ours.append(os.open(os.devnull, os.O_RDWR))
            return ours[-1]
        return wanted if isinstance(wanted, int) else wanted.fileno()

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        status = self._ended(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return status

    def _ended(self, timeout: float | None) -> int | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._waiting:
            if self.returncode is None:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                ready, _, _ = select.select([self._connection], [], [], left)
                if ready:
                    self.returncode = int(self._answers.readline())
                    self._answers.close()
                    self._connection.close()
            found: int | None = self.returncode
            return found

    def __del__(self) -> None:
        """Its end is the other process's to see."""
