"""Runs `memstore` in processes that are forked from this one, which has imported everything once.

`forks.py` runs this file as a program of its own, one per test process. Each connection to its socket asks for one
command: a JSON object (arguments, directory, environment, umask) and three descriptors, which become its standard
input, output and error. The answers are a line with its process ID and, at its end, one with its exit status (negative:
the signal that ended it). Who ends a connection before that, also by dying, ends the command and its process group.
When standard input ends, the test process is dead, and everything is ended.
"""

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import selectors
import signal
import socket
import sys
from typing import Any

_REQUEST_MAX_BYTES = 1 << 20
_MODULES = (
    "alembic.command",
    "alembic.config",
    "app.server.application",
    "boto3",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.httptools_impl",
    "uvloop",
)
"""What the modules of `app.cli` import when they are needed."""


class _Command:
    """A command that runs, and the connection that waits for its end."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self.connection = connection
        self.process = os.pidfd_open(pid)
        self.is_over = False

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def end(self) -> None:
        """Say how it ended."""
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        with contextlib.suppress(OSError):
            self.connection.sendall(b"%d\n" % status)
        self.connection.close()
        os.close(self.process)
        self.is_over = True


def preload() -> None:
    """Import what the commands import; none of it looks at the environment or starts a thread meanwhile."""
    for name in _MODULES:
        importlib.import_module(name)
    for module in pkgutil.iter_modules(importlib.import_module("app.cli").__path__):
        importlib.import_module(f"app.cli.{module.name}")


def serve(listener: socket.socket) -> dict[str, Any] | None:
    """Answer until standard input ends (None); in a forked process, what it is to become."""
    running: dict[int, _Command] = {}
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                connection = listener.accept()[0]
                request, descriptors = _read(connection)
                pid = os.fork() if request is not None else 0
                if pid == 0 and request is not None:
                    return request | {"descriptors": descriptors}
                for descriptor in descriptors:
                    os.close(descriptor)
                if request is None:
                    connection.close()
                    continue
                command = _Command(pid, connection)
                running[pid] = command
                selector.register(command.process, selectors.EVENT_READ, command)
                selector.register(connection, selectors.EVENT_READ, command)
                with contextlib.suppress(OSError):
                    connection.sendall(b"%d\n" % pid)
            elif key.fileobj == sys.stdin.fileno():
                for command in running.values():
                    command.kill()
                return None
            elif isinstance(key.data, _Command) and not key.data.is_over:
                command = key.data
                if key.fileobj is command.connection:
                    selector.unregister(command.connection)
                    command.kill()
                    continue
                selector.unregister(command.process)
                with contextlib.suppress(KeyError):
                    selector.unregister(command.connection)
                del running[command.pid]
                command.end()


def _read(connection: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    data, descriptors, _, _ = socket.recv_fds(connection, 65_536, 3)
    while data and not data.endswith(b"\n") and len(data) < _REQUEST_MAX_BYTES:
        piece = connection.recv(65_536)
        if not piece:
            break
        data += piece
    request: dict[str, Any] | None = json.loads(data) if data.endswith(b"\n") and len(descriptors) == 3 else None
    return request, descriptors


def become(request: dict[str, Any]) -> None:
    """Take on what a process of its own would have been started with."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    for target, descriptor in enumerate(request["descriptors"]):
        os.dup2(descriptor, target)
    os.closerange(3, os.sysconf("SC_OPEN_MAX") if os.sysconf("SC_OPEN_MAX") < 65_536 else 65_536)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    os.umask(request["umask"])
    sys.argv = request["arguments"]


if __name__ == "__main__":
    for quiet in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(quiet, signal.SIG_IGN)
    preload()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(sys.argv[1])
        door.listen(64)
        sys.stdout.write("ready\n")
        found = serve(door)
        if found is not None:
            door.detach()  # `become` closes it
    if found is not None:
        become(found)
        from app.cli.main import main

        main()
