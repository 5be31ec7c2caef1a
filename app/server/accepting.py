"""The event loop of a server alone on its port: it takes every connection that waits, not one a turn.

libuv accepts one connection in each turn of its loop, so that several processes share what comes. A turn in which 32
clients are answered lasts 30 ms; then the 32nd of a burst of new clients would wait for a second before anybody reads
what it asks.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

import uvloop

_log = logging.getLogger(__name__)

_AT_ONCE = 128
"""Connections that are taken in one turn at most."""

Factory = Callable[[], asyncio.BaseProtocol]


class Loop(uvloop.Loop):
    """uvloop's, whose servers on a given socket take more than one connection a turn."""

    async def create_server(  # type: ignore[override]
        self, protocol_factory: Factory, *arguments: Any, sock: socket.socket | None = None, **options: Any
    ) -> asyncio.AbstractServer:
        """As the standard library has it. `sock` stays the caller's to close, which ends the taking as well."""
        if sock is None or options.get("ssl") is not None:
            return await super().create_server(protocol_factory, *arguments, sock=sock, **options)
        listener, starting = sock, set[asyncio.Task[Any]]()

        def started(task: asyncio.Task[Any]) -> None:
            starting.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                _log.info("a connection that was just taken is gone: %s", error)

        def take_the_rest() -> None:
            for _ in range(_AT_ONCE):
                try:
                    connection, _address = listener.accept()
                except OSError:
                    return  # None waits, none can be taken now, or the server is closed.
                connection.setblocking(False)
                task = self.create_task(self.connect_accepted_socket(protocol_factory, connection))
                starting.add(task)
                task.add_done_callback(started)

        def first() -> asyncio.BaseProtocol:
            take_the_rest()
            return protocol_factory()

        return await super().create_server(first, *arguments, sock=sock, **options)


def new_loop() -> asyncio.AbstractEventLoop:
    """What uvicorn makes its loop with."""
    return Loop()
