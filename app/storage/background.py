"""Loops that run beside the requests of a process, each for as long as the process serves."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

_log = logging.getLogger(__name__)

_PAUSE_SECONDS = 10.0
"""After an error that a loop did not expect."""


class Background:
    """One loop. An error that leaves it is logged, and it begins again after a pause: no loop ends unseen."""

    def __init__(self, name: str, run: Callable[[], Awaitable[None]], *, pause_seconds: float = _PAUSE_SECONDS) -> None:
        """`run` loops until it is cancelled."""
        self._name = name
        self._run = run
        self._pause = pause_seconds
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._task is not None

    def start(self) -> None:
        """Begin, in the running event loop."""
        self._task = asyncio.create_task(self._forever(), name=self._name)

    async def stop(self) -> None:
        """Cancel it and wait for its end. Does nothing if it was never started."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None

    async def _forever(self) -> None:
        while True:
            try:
                await self._run()
                return
            except Exception:
                _log.exception("%s failed, and begins again in %g s", self._name, self._pause)
                await asyncio.sleep(self._pause)
