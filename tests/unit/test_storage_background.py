"""Loops in the background: woken, put off, never ended by an error, always ended by `stop`."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from app.contract.errors import Unavailable
from app.storage import background
from app.storage.background import Background

SECONDS = 60.0


def run(coroutine: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(SECONDS):
            await coroutine()

    asyncio.run(bounded())


async def turns(number: int) -> None:
    """Let the event loop go round."""
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.mark.parametrize("later", range(6))
def test_a_loop_that_is_woken_in_the_moment_of_its_end_ends(later: int) -> None:
    async def step() -> float:
        return 3600.0

    async def wake_and_stop() -> None:
        loop = Background("test", step)
        loop.start()
        await turns(10)  # It rests.
        loop.wake()
        await turns(later)
        await loop.stop()
        assert not loop.is_running

    run(wake_and_stop)


def test_a_loop_ends_after_a_step_that_lost_its_cancellation() -> None:
    steps = 0

    async def step() -> None:
        nonlocal steps
        steps += 1
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return

    async def stop() -> None:
        loop = Background("test", step)
        loop.start()
        await turns(10)
        await loop.stop()
        assert steps == 1

    run(stop)


def test_a_step_that_is_not_due_waits_until_it_is_woken() -> None:
    steps = asyncio.Queue[None]()

    async def step() -> None:
        steps.put_nowait(None)

    async def wake() -> None:
        loop = Background("test", step)
        loop.start()
        await steps.get()
        await turns(10)
        assert steps.empty()
        loop.wake()
        await steps.get()
        await loop.stop()

    run(wake)


def test_a_wake_up_in_the_middle_of_a_step_is_followed_by_another_step() -> None:
    begun = asyncio.Queue[None]()
    goes_on = asyncio.Event()

    async def step() -> None:
        begun.put_nowait(None)
        await goes_on.wait()

    async def wake() -> None:
        loop = Background("test", step)
        loop.start()
        await begun.get()
        loop.wake()
        goes_on.set()
        await begun.get()
        await loop.stop()

    run(wake)


def test_no_error_ends_a_loop_and_outages_put_it_off_for_longer_each_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(Exception):
        pass

    away, full, bug = Unavailable("the database is away"), Full("the disk is full"), ValueError("a bug")
    comes = iter([away, full, away, away, None, away, bug, None])
    pauses: list[float] = []
    over = asyncio.Event()

    async def happens(event: asyncio.Event, within_seconds: float) -> bool:
        pauses.append(within_seconds)
        await asyncio.sleep(0)
        return False

    async def step() -> float | None:
        try:
            error = next(comes)
        except StopIteration:
            over.set()
            return None
        if error is not None:
            raise error
        return 1.0

    async def fail() -> None:
        loop = Background("test", step, outages=(Full,), longest_pause_seconds=10.0)
        loop.start()
        await over.wait()
        await loop.stop()

    monkeypatch.setattr(background, "happens", happens)
    with caplog.at_level(logging.WARNING, "app.storage.background"):
        run(fail)
    assert pauses == [2, 4, 8, 10, 1, 2, 10, 1]
    told = [(record.getMessage(), record.exc_info is not None) for record in caplog.records]
    assert told[1] == ("test is put off for 4 s: the disk is full", False)
    assert told[5] == ("test failed, and is tried again in 10 s", True)


def test_a_loop_that_was_stopped_can_begin_again() -> None:
    steps = asyncio.Queue[None]()

    async def step() -> None:
        steps.put_nowait(None)

    async def again() -> None:
        loop = Background("test", step)
        for _ in range(2):
            loop.start()
            loop.start()
            await steps.get()
            await loop.stop()
            await loop.stop()
        assert steps.empty()

    run(again)
