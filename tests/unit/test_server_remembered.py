"""What is found out for strangers: how often, and what the others get meanwhile."""

import asyncio
from collections.abc import Iterator

import pytest

from app.server.remembered import Remembered


class Source:
    """Counts how often it was asked; `open` lets it answer."""

    def __init__(self) -> None:
        self.asked = 0
        self.now = 0.0
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self) -> int:
        self.asked += 1
        number = self.asked
        await self.open.wait()
        return number

    def remembered(self) -> Remembered[int]:
        return Remembered(self, per_second=2, at_once=3, clock=lambda: self.now)


def test_who_asks_seldom_gets_a_fresh_answer_and_who_hammers_the_last_one() -> None:
    async def run() -> None:
        source = Source()
        remembered = source.remembered()
        assert [await remembered() for _ in range(100)] == [1, 2, 3, *[3] * 97]
        for expected in (4, 5, 6):
            source.now += 0.5
            assert [await remembered() for _ in range(100)] == [expected] * 100
        source.now += 1_000
        assert [await remembered() for _ in range(5)] == [7, 8, 9, 9, 9]

    asyncio.run(run())


def test_those_who_ask_together_are_told_by_one() -> None:
    async def run() -> None:
        source = Source()
        remembered = source.remembered()
        source.open.clear()
        waiting = [asyncio.create_task(remembered()) for _ in range(50)]
        await asyncio.sleep(0)
        source.open.set()
        assert await asyncio.gather(*waiting) == [1] * 50

    asyncio.run(run())


def test_one_who_leaves_while_finding_out_does_not_take_the_others_along() -> None:
    async def run() -> None:
        source = Source()
        remembered = source.remembered()
        source.open.clear()
        first = asyncio.create_task(remembered())
        await asyncio.sleep(0)
        second = asyncio.create_task(remembered())
        await asyncio.sleep(0)
        first.cancel()
        source.open.set()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await second == 2

    asyncio.run(run())


def test_a_failure_is_not_remembered() -> None:
    async def run() -> None:
        answers: Iterator[RuntimeError | str] = iter([RuntimeError("once"), "good"])

        async def find_out() -> str:
            answer = next(answers)
            if isinstance(answer, RuntimeError):
                raise answer
            return answer

        remembered = Remembered(find_out, per_second=1, at_once=2, clock=lambda: 0.0)
        with pytest.raises(RuntimeError, match="once"):
            await remembered()
        assert await remembered() == "good"

    asyncio.run(run())
