"""Answers that cost something, for strangers: fresh for those who ask seldom, the last one for those who hammer."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """What `find_out` gives, found out a bounded number of times, by one caller at a time."""

    def __init__(
        self,
        find_out: Callable[[], Awaitable[T]],
        *,
        per_second: float,
        at_once: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """per_second, at_once: how often it is found out, in the long run and in a row; so old may an answer be.

        clock: seconds that only ever grow.
        """
        self._find_out = find_out
        self._per_second = per_second
        self._at_once = at_once
        self._clock = clock
        self._credit = float(at_once)
        self._time = clock()
        self._turn = asyncio.Lock()
        self._number = 0
        """Of the latest answer."""
        self._latest: list[T] = []
        """The latest answer, once there is one."""

    async def __call__(self) -> T:
        """The answer; raises what `find_out` raises."""
        number = self._number
        if self._latest and not self._may_find_out():
            return self._latest[0]
        async with self._turn:
            # Those who asked meanwhile take the answer of the one they waited for.
            if self._number == number:
                self._credit -= 1
                self._latest = [await self._find_out()]
                self._number += 1
            return self._latest[0]

    def _may_find_out(self) -> bool:
        now = self._clock()
        self._credit = min(self._at_once, self._credit + (now - self._time) * self._per_second)
        self._time = now
        return self._credit >= 1
