"""A small process that outlives the mount daemon's worker: it keeps what a worker needs to go on where one died.

The supervisor holds each mount's /dev/fuse descriptor, so that the mount stays alive, and a piece of memory per
name in which the worker writes down what its successor must know. When the worker dies, the supervisor starts it
again with the same command and hands over both; the new worker opens its sessions with what it finds.

```python
# the process that stays                      # the worker
status = supervisor.run([python, …])          custody = Custody.from_environment()
                                              for name, fd in custody.kept().items(): …  # take over
                                              custody.keep("notes", fd); custody.save("notes", b"…")
                                              custody.append("notes", b"one more")       # cheap, kill -9 safe
                                              custody.release("notes")                   # after the unmount
```

Only the standard library: the supervisor is meant to run as `lean_command("app.mount.daemon.supervisor", "main", …)`,
which loads nothing else and stays near the size of a bare interpreter.
"""

import contextlib
import errno
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

log = logging.getLogger(__name__)

VARIABLE = "MEMSTORE_CUSTODY"
"""Where a worker finds its custody: JSON with the numbers of the descriptors it inherits."""
MESSAGE_BYTES = 4096
LONG_LIFE_SECONDS = 5.0
"""A worker that lived this long had started well."""
MAX_SHORT_LIVES = 6
"""After this many workers in a row died young, another is not started."""
FIRST_PAUSE_SECONDS = 0.02
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

_BOOT = "import sys, importlib; sys.path.insert(0, sys.argv[1]); m, f = sys.argv[2:4]; del sys.argv[:4]; sys.exit(getattr(importlib.import_module(m), f)(sys.argv))"  # noqa: E501
_PACKAGE_PARENT = str(Path(__file__).resolve().parents[3])


def lean_command(module: str, function: str, arguments: Sequence[str] = ()) -> list[str]:
    """A command that calls `function(list of arguments)` of a module of ours in a bare interpreter.

    Without site packages and without the environment's Python settings: for modules that need none, it starts
    faster and takes less memory. What the function returns is the exit status.
    """
    return [sys.executable, "-I", "-S", "-c", _BOOT, _PACKAGE_PARENT, module, function, *arguments]


class Custody:
    """A worker's side: what the supervisor keeps for it. Thread-safe for different names."""

    def __init__(self, channel: socket.socket | None, kept: dict[str, int], states: dict[str, int], lives: int) -> None:
        self._channel = channel
        self._kept = kept
        self._states = states
        self.lives = lives
        """How many workers there were before this one."""

    @classmethod
    def from_environment(cls) -> "Custody":
        """What the supervisor handed over. Without a supervisor: an empty custody, whose calls keep nothing.

        Takes the variable out of the environment, so that programs started from here don't find it.
        """
        text = os.environ.pop(VARIABLE, None)
        if text is None:
            return cls(None, {}, {}, 0)
        handed: dict[str, Any] = json.loads(text)
        descriptors = [handed["channel"], *handed["kept"].values(), *handed["states"].values()]
        for fd in descriptors:
            os.set_inheritable(fd, False)
        return cls(socket.socket(fileno=handed["channel"]), handed["kept"], handed["states"], handed["lives"])

    @property
    def supervised(self) -> bool:
        """Whether somebody keeps what is given to `keep`."""
        return self._channel is not None

    def kept(self) -> dict[str, int]:
        """The descriptors an earlier worker gave to `keep`, by name. They belong to the caller now."""
        return dict(self._kept)

    def keep(self, name: str, fd: int) -> None:
        """Have a descriptor stay open if this process dies. It replaces an earlier one of that name."""
        self._kept[name] = fd
        self._send({"keep": name}, fd)

    def state(self, name: str) -> bytes | None:
        """What was last saved under a name, with all that was appended since; None if nothing was.

        If a worker was killed while it appended, the end of its last piece may be missing.
        """
        fd = self._states.get(name)
        if fd is None:
            return None
        return os.pread(fd, os.fstat(fd).st_size, 0)

    def save(self, name: str, state: bytes) -> None:
        """Replace what is remembered under a name: a successor finds the old state or the new one, never a mix."""
        fd = os.memfd_create(f"memstore-{name}"[:200])
        try:
            if os.write(fd, state) != len(state):
                raise OSError(errno.ENOSPC, "no memory left for a mount's state")
            self._send({"state": name}, fd)
        except BaseException:
            os.close(fd)
            raise
        old = self._states.get(name)
        self._states[name] = fd
        if old is not None:
            os.close(old)

    def append(self, name: str, piece: bytes) -> None:
        """Add to what is remembered under a name; about a microsecond, no message. Needs a `save` before it."""
        os.write(self._states[name], piece)

    def release(self, name: str) -> None:
        """Forget a name's descriptor and state. The caller closes its own descriptor."""
        self._kept.pop(name, None)
        state = self._states.pop(name, None)
        if state is not None:
            os.close(state)
        self._send({"release": name})

    def _send(self, message: Mapping[str, str], fd: int | None = None) -> None:
        if self._channel is None:
            return
        # The message and the descriptor are safe once they are in the socket: the supervisor reads it out before
        # it starts the next worker.
        try:
            socket.send_fds(self._channel, [json.dumps(message).encode()], [] if fd is None else [fd])
        except (BrokenPipeError, ConnectionResetError):
            log.error("the supervisor is gone: if this process dies, its mounts die with it")
            self._channel = None


def run(argv: Sequence[str], *, pass_fds: Sequence[int] = (), environment: Mapping[str, str] | None = None) -> int:
    """Run a worker until it ends by itself; start it again, with what it had given into custody, when it dies.

    A worker ends the supervisor by exiting with 0, or with anything while nothing is in custody (it never got
    going), or after SIGTERM or SIGINT, which are passed on to it, as are SIGHUP, SIGUSR1 and SIGUSR2. Otherwise it
    is started again: at once the first time, with growing pauses if it keeps dying within 5 s; after six such
    deaths in a row the supervisor gives up and its mounts end. `pass_fds` are inherited by every worker.

    Returns the last worker's exit status, 128 + the signal's number if one killed it.
    """
    return _Supervisor(argv, pass_fds, os.environ if environment is None else environment).run()


def main(argv: Sequence[str]) -> int:
    """For `lean_command`: the worker's command as arguments, after a comma-separated list of descriptors to pass."""
    pass_fds, *command = argv
    return run(command, pass_fds=[int(fd) for fd in pass_fds.split(",") if fd])


class _Supervisor:
    def __init__(self, argv: Sequence[str], pass_fds: Sequence[int], environment: Mapping[str, str]) -> None:
        self.argv = list(argv)
        self.pass_fds = list(pass_fds)
        self.environment = dict(environment)
        # One channel for all workers: a message that a dying worker sent is still in it.
        self.channel, self.workers_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.setblocking(False)
        self.kept: dict[str, int] = {}
        self.states: dict[str, int] = {}
        self.worker: subprocess.Popen[bytes] | None = None
        self.asked_to_end = False
        self.woken = -1

    def run(self) -> int:
        # A handler runs between two steps of Python: without a byte to wake it, the poll that a signal comes just
        # before would sleep on, and the signal would not be passed on.
        self.woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        woke_before = signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        previous = {number: signal.signal(number, self._on_signal) for number in FORWARDED}
        try:
            return self._supervise()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(woke_before)
            for fd in (self.woken, wakes, *self.kept.values(), *self.states.values()):
                os.close(fd)
            self.channel.close()
            self.workers_end.close()

    def _supervise(self) -> int:
        lives, short_lives = 0, 0
        while True:
            began = time.monotonic()
            status = self._one_life(lives)
            lives += 1
            if status == 0 or self.asked_to_end or not self.kept:
                return status
            short_lives = short_lives + 1 if time.monotonic() - began < LONG_LIFE_SECONDS else 0
            if short_lives == MAX_SHORT_LIVES:
                log.error("the mount's worker died %d times in a row: giving up", short_lives)
                return status
            log.warning("the mount's worker ended with status %d: starting another", status)
            if short_lives > 1 and not self._pause(FIRST_PAUSE_SECONDS * 2**short_lives):
                return status

    def _one_life(self, lives: int) -> int:
        end = self.workers_end.fileno()
        handed = {"channel": end, "kept": self.kept, "states": self.states, "lives": lives}
        self.worker = subprocess.Popen(  # noqa: S603 - the caller's own command
            self.argv,
            env={**self.environment, VARIABLE: json.dumps(handed)},
            pass_fds=[*self.pass_fds, end, *self.kept.values(), *self.states.values()],
        )
        if self.asked_to_end:  # the signal came before there was anybody to pass it to
            self.worker.send_signal(signal.SIGTERM)
        pid_fd = os.pidfd_open(self.worker.pid)
        try:
            poller = select.poll()
            poller.register(pid_fd, select.POLLIN)
            poller.register(self.channel, select.POLLIN)
            poller.register(self.woken, select.POLLIN)
            while not any(fd == pid_fd for fd, _ in poller.poll()):
                self._take_messages()
                with contextlib.suppress(BlockingIOError):
                    os.read(self.woken, 4_096)
        finally:
            os.close(pid_fd)
        status = self.worker.wait()
        self.worker = None
        self._take_messages()
        return status if status >= 0 else 128 - status

    def _take_messages(self) -> None:
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self.channel, MESSAGE_BYTES, 1)
            except BlockingIOError:
                return
            if not data:
                return
            message: dict[str, str] = json.loads(data)
            fd = fds[0] if fds else None
            if name := message.get("keep"):
                _replace(self.kept, name, fd)
            elif name := message.get("state"):
                _replace(self.states, name, fd)
            elif name := message.get("release"):
                _replace(self.kept, name, None)
                _replace(self.states, name, None)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self.asked_to_end = True
        if self.worker is not None:
            with contextlib.suppress(ProcessLookupError):
                self.worker.send_signal(number)

    def _pause(self, seconds: float) -> bool:
        """Whether it came to its end; an order to end cuts it short."""
        until = time.monotonic() + seconds
        while not self.asked_to_end and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))  # a signal's handler does not cut a sleep short
        return not self.asked_to_end


def _replace(descriptors: dict[str, int], name: str, fd: int | None) -> None:
    old = descriptors.pop(name, None)
    if old is not None:
        os.close(old)
    if fd is not None:
        descriptors[name] = fd
