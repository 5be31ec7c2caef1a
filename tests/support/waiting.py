"""Waiting for what can be observed: as long as a busy machine may take, and not a moment longer than it took."""

import asyncio
import time
from collections.abc import Callable

WAIT_SECONDS = 120.0
"""No test judges time: this is when something is not going to happen any more, however busy the machine is."""
_FIRST_PAUSE_SECONDS = 0.005
_LAST_PAUSE_SECONDS = 0.05


def until(condition: Callable[[], object], what: str | Callable[[], str], within: float = WAIT_SECONDS) -> None:
    """Look again and again until `condition` holds; an AssertionError that names it should it never.

    what: what is waited for, in words; or a function that is asked at the end, and says how things stand instead.
    """
    deadline = time.monotonic() + within
    pause = _FIRST_PAUSE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"still not so after {within:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(pause)
        pause = min(1.2 * pause, _LAST_PAUSE_SECONDS)


async def eventually(condition: Callable[[], object], what: str, within: float = WAIT_SECONDS) -> None:
    """`until` for a test that is a coroutine itself; the condition is looked at in another thread."""
    await asyncio.to_thread(until, condition, what, within)
