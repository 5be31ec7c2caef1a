"""Loops that run beside the requests of a process, each for as long as the process serves."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from contextvars import Context

from app.contract.errors import Overloaded, Unavailable

_log = logging.getLogger(__name__)

LONGEST_PAUSE_SECONDS = 10.0
"""After an error that a step did not expect, or several outages in a row."""
_FIRST_PAUSE_SECONDS = 2.0
"""After the first outage; it doubles with each that follows."""


async def happens(event: asyncio.Event, within_seconds: float) -> bool:
    """Wait until an event is set; False if that took longer."""
    # Not `asyncio.wait_for`: before Python 3.12 it loses a cancellation that comes in the same moment as the event.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_seconds):
            await event.wait()
    return event.is_set()


class Background:
    """One loop: a step, a pause until the next one is due or is asked for, and so on until `stop`.

    No error ends it: an outage is a line in the log, and the pause grows while it lasts; an error that nobody expected
    is logged with its stack.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], Awaitable[float | None]],
        *,
        outages: tuple[type[Exception], ...] = (),
        longest_pause_seconds: float = LONGEST_PAUSE_SECONDS,
    ) -> None:
        """`step` does what there is to do, and returns in how many seconds it is due again; None: when it is woken.

        outages: what a step raises, beside `Unavailable` and `Overloaded`, when it can't be done for now. Their texts
            go into the log.
        """
        self._name = name
        self._step = step
        self._outages: tuple[type[Exception], ...] = (Unavailable, Overloaded, *outages)
        self._longest_pause = longest_pause_seconds
        self._next_pause = _FIRST_PAUSE_SECONDS
        self._woken = asyncio.Event()
        self._is_ending = False
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._task is not None

    def start(self, *, after_seconds: float = 0.0) -> None:
        """Begin, in the running event loop. Does nothing if it runs already."""
        if self._task is None:
            self._is_ending = False
            # In a context of its own: it works for all, not for a request that happens to start it.
            self._task = asyncio.create_task(self._run(after_seconds), name=self._name, context=Context())

    def wake(self) -> None:
        """Take the next step now, or right after the one that is under way."""
        self._woken.set()

    async def stop(self) -> None:
        """Cancel the step that is under way and wait for its end. Does nothing if it does not run."""
        if self._task is None:
            return
        # A step may lose its cancellation, as libraries do; then the loop ends after it.
        self._is_ending = True
        self._woken.set()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None

    async def _run(self, after_seconds: float) -> None:
        await self._rest(after_seconds)
        while not self._is_ending:
            self._woken.clear()
            pause = await self._take_step()
            if not self._is_ending:
                await self._rest(pause)

    async def _take_step(self) -> float | None:
        try:
            pause = await self._step()
        except self._outages as error:
            pause = min(self._next_pause, self._longest_pause)
            self._next_pause = 2 * pause
            _log.warning("%s is put off for %g s: %s", self._name, pause, error)
        except Exception:
            pause = self._longest_pause
            _log.exception("%s failed, and is tried again in %g s", self._name, pause)
        else:
            self._next_pause = _FIRST_PAUSE_SECONDS
        return pause

    async def _rest(self, seconds: float | None) -> None:
        if seconds is None:
            await self._woken.wait()
        elif seconds > 0:
            await happens(self._woken, seconds)
        else:
            await asyncio.sleep(0)
