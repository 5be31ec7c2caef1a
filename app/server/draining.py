"""Knowing that the process is about to end.

The server waits for the answers under way, and only then tells the application. An answer without an end of its own
would be waited for in vain, so it must hear of the signal itself.
"""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Draining:
    """`started` is set once the process was asked to end."""

    def __init__(self) -> None:
        self.started = asyncio.Event()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the signals that the server handles, and pass them on to it. To be entered in the loop that serves."""
        if threading.current_thread() is not threading.main_thread():
            yield  # Signals come to the main thread only, and so do servers that handle them.
            return
        loop = asyncio.get_running_loop()
        handlers = {number: signal.getsignal(number) for number in _SIGNALS}

        def hear(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self.started.set)
            handler = handlers[signal.Signals(number)]
            if callable(handler):
                handler(number, frame)

        # A signal that nobody handles ends the process at once, and one that is ignored is not meant for us.
        heard = [number for number, handler in handlers.items() if callable(handler)]
        for number in heard:
            signal.signal(number, hear)
        try:
            yield
        finally:
            for number in heard:
                signal.signal(number, handlers[number])
