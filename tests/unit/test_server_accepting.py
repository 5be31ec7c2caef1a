"""A server takes all connections that wait in a few turns of its loop, however many they are."""

import asyncio
import socket
from contextlib import ExitStack

from app.server.accepting import new_loop

CLIENTS = 50
TURNS = 10
"""Libuv alone takes one connection a turn."""


class _Connected(asyncio.Protocol):
    def __init__(self, made: list[asyncio.BaseTransport], first: asyncio.Event) -> None:
        self._made, self._first = made, first

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._made.append(transport)
        self._first.set()


def test_clients_that_wait_together_are_taken_together_and_none_after_the_end() -> None:
    made: list[asyncio.BaseTransport] = []
    turns = 0

    async def serve(listener: socket.socket) -> None:
        nonlocal turns
        first = asyncio.Event()
        server = await asyncio.get_running_loop().create_server(lambda: _Connected(made, first), sock=listener)
        await first.wait()
        while len(made) < CLIENTS:
            turns += 1
            await asyncio.sleep(0)
        server.close()
        listener.close()
        for transport in made:
            transport.close()
        await asyncio.sleep(0)

    with ExitStack() as opened, asyncio.Runner(loop_factory=new_loop) as runner:
        listener = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=CLIENTS))
        place = listener.getsockname()
        for _ in range(CLIENTS):
            opened.enter_context(socket.create_connection(place))
        runner.run(serve(listener))
        assert turns <= TURNS
        with socket.socket() as late:
            assert late.connect_ex(place) != 0
