"""Programs that tests run beside themselves: started, watched, logged, and gone when the tests are."""

import contextlib
import http.client
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import BinaryIO, ClassVar

LOG_TAIL_BYTES = 20_000
START_SECONDS = 180.0
STOP_SECONDS = 120.0
POLL_SECONDS = 0.02


class ProcessError(RuntimeError):
    """A program died, or did not become ready or end in time; the message carries the end of its log."""


def free_port() -> int:
    """A TCP port on the loopback address that nobody listens on.

    It lies below the range from which kernels take ports for outgoing connections (32768 and up), so that it
    is still free when a server that was stopped starts again on it.
    """
    while True:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def answers(port: int, path: str) -> bool:
    """Whether an HTTP server on the loopback address answers `GET path` with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@cache
def _reaper() -> subprocess.Popen[bytes]:
    """The program that cleans up should this process be killed; see reaper.py."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(__file__).with_name("reaper.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # the terminal's Ctrl-C is for the tests
    )


def _tell_reaper(line: str) -> None:
    pipe = _reaper().stdin
    assert pipe is not None
    with contextlib.suppress(BrokenPipeError):  # somebody ended the reaper: the tests go on without it
        pipe.write(os.fsencode(line) + b"\n")
        pipe.flush()


def end_reaper() -> None:
    """At the end of the run: everything is forgotten by now, or the reaper ends it."""
    if not _reaper.cache_info().currsize:
        return
    reaper = _reaper()
    assert reaper.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        reaper.stdin.close()
    reaper.wait(STOP_SECONDS)
    _reaper.cache_clear()


@contextlib.contextmanager
def short_directory() -> Iterator[Path]:
    """A temporary directory whose path leaves room for a Unix socket's name (104 bytes in all)."""
    # Not $TMPDIR first: it can be long, and closed to other users.
    root = "/tmp" if os.access("/tmp", os.W_OK | os.X_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="memstore-", dir=root))
    _tell_reaper(f"directory {directory}")
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        _tell_reaper(f"forget directory {directory}")


class Daemon:
    """A server program in a process group of its own; all it prints goes to one log file.

    It can be started again after `stop` or `kill`; the log goes on where it was.
    """

    running: ClassVar[dict["Daemon", None]] = {}
    """Those that were started and neither stopped nor killed; failure reports show their logs."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | os.PathLike[str]],
        *,
        log: Path,
        ready: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        start: Callable[[BinaryIO], "subprocess.Popen[bytes]"] | None = None,
    ) -> None:
        """Nothing runs before `start`.

        ready: asked again and again during a start, until it says yes.
        environment: the whole environment of the program (default: that of the tests).
        user: run as this user (only root may ask for it).
        start: starts it otherwise than by `command`, given where its output goes.
        """
        self.name = name
        self.log = log
        self._command = list(command)
        self._ready = ready
        self._environment = environment
        self._directory = directory
        self._user = user
        self._stop_signal = stop_signal
        self._start = start or self._started
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process of the latest start."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process

    def start(self, *, within: float = START_SECONDS) -> None:
        """Start, and return when it is ready; `ProcessError` once it dies, or after `within` seconds."""
        assert self not in Daemon.running, f"{self.name} is running already"
        with self.log.open("ab") as output:
            self._process = self._start(output)
        Daemon.running[self] = None
        _tell_reaper(f"group {self._process.pid}")
        try:
            self._wait_until_ready(within)
        except BaseException:
            self.kill()
            raise

    def _started(self, output: BinaryIO) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if self._environment is None else dict(self._environment),
            cwd=self._directory,
            start_new_session=True,
            user=self._user,
            group=group_of(self._user),
            extra_groups=None if self._user is None else [],
        )

    def _wait_until_ready(self, within: float) -> None:
        deadline = time.monotonic() + within
        while not self._ready():
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self.process.wait(POLL_SECONDS)
                raise ProcessError(f"{self.name} ended with status {status} at its start\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise ProcessError(f"{self.name} was not ready after {within:g} s\n{self.log_tail()}")

    def stop(self, *, within: float = STOP_SECONDS) -> int:
        """Ask it to end, wait, and return its exit status (negative: the signal that ended it)."""
        if self.process.poll() is None:
            self.process.send_signal(self._stop_signal)
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise ProcessError(
                f"{self.name} still ran {within:g} s after {self._stop_signal.name}\n{self.log_tail()}"
            ) from None
        finally:
            self.kill()

    def kill(self) -> None:
        """End the program and everything in its process group by SIGKILL; harmless when it is gone."""
        if self not in Daemon.running:
            return  # the group's number may belong to others by now
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        del Daemon.running[self]
        _tell_reaper(f"forget group {self.process.pid}")

    def log_tail(self, since: int = 0) -> str:
        """The end of what it printed, from byte `since` of the log on."""
        size = self.log.stat().st_size
        begin = max(since, size - LOG_TAIL_BYTES)
        with self.log.open("rb") as log:
            log.seek(begin)
            text = log.read().decode(errors="replace")
        return text if begin == since else f"[… the first {begin - since} bytes are in {self.log}]\n{text}"


def group_of(user: str | None) -> int | None:
    """The number of a user's own group, in the form `subprocess` takes; None for nobody in particular."""
    return None if user is None else pwd.getpwnam(user).pw_gid
