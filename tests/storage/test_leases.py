"""Leases: kept for as long as they are wanted, given up when they may be another's, whatever the clocks do."""

import asyncio
import time
from collections.abc import Callable

import pytest

from app.contract import clock
from app.contract.errors import Unavailable
from app.storage import background
from app.storage.rows import leases
from app.storage.rows.leases import Lease, LeaseLost
from tests.storage.parts import Parts

pytestmark = pytest.mark.anyio

HOUR = 3600
SECONDS = 60.0


class Clocks:
    """The clocks of this process: the one on the wall can be put forward and back, the other only goes on."""

    def __init__(self) -> None:
        self.wall = 0.0
        """Seconds by which it is ahead."""
        self.went_on = 0.0
        """Seconds that have passed beside those that did."""

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        self.wall += seconds
        self.went_on += seconds


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    now, monotonic = clock.now, time.monotonic
    monkeypatch.setattr(clock, "now", lambda: now() + int(clocks.wall * clock.MICROSECONDS_PER_SECOND))
    monkeypatch.setattr(leases, "time", type("", (), {"monotonic": lambda: monotonic() + clocks.went_on}))
    return clocks


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Loops look again after a moment, whatever they were going to wait; how long that was."""
    waits: list[float] = []

    async def happens(event: asyncio.Event, within_seconds: float) -> bool:
        waits.append(within_seconds)
        await asyncio.sleep(0.005)
        return event.is_set()

    monkeypatch.setattr(background, "happens", happens)
    return waits


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - the loops of what is tested make it come true
            await asyncio.sleep(0.005)


async def some(looks: list[float]) -> None:
    """Let a loop look a few times."""
    seen = len(looks)
    await until(lambda: len(looks) > seen + 3)


def lease(parts: Parts, seconds: float = HOUR) -> Lease:
    return Lease(parts.storage.database, "test", seconds)


@pytest.mark.any_backend
async def test_a_lease_that_is_kept_stays_its_holders_for_longer_than_it_lasts(
    parts: Parts, clocks: Clocks, looks: list[float]
) -> None:
    kept, other = lease(parts), lease(parts)
    assert await kept.take()
    async with kept.kept():
        for _ in range(4):
            clocks.pass_by(HOUR * 0.6)
            await some(looks)
            assert not await other.take()


@pytest.mark.any_backend
async def test_the_loss_of_a_lease_ends_the_work(parts: Parts, looks: list[float]) -> None:
    lost, ended = lease(parts), False

    async def work() -> None:
        nonlocal ended
        # As after a pause of this process that was longer than the lease.
        await asyncio.to_thread(parts.outside.rows.execute, "UPDATE leases SET holder = 'another'")
        async with asyncio.timeout(SECONDS):
            await asyncio.Event().wait()
        ended = True

    assert await lost.take()
    with pytest.raises(LeaseLost, match="'test'"):
        async with lost.kept():
            await work()
    assert not ended
    assert parts.outside.rows.execute("SELECT holder FROM leases") == [("another",)]


@pytest.mark.any_backend
async def test_the_work_ends_when_the_database_is_away_for_as_long_as_the_lease_is_sure(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise Unavailable("the database is away")

    lost = lease(parts, seconds=1)
    assert await lost.take()
    monkeypatch.setattr(parts.storage.database, "fetch_one", away)
    with pytest.raises(LeaseLost):
        async with lost.kept(), asyncio.timeout(SECONDS):
            await asyncio.Event().wait()


@pytest.mark.any_backend
async def test_a_timeout_of_the_work_itself_is_no_loss(parts: Parts) -> None:
    own = lease(parts)
    assert await own.take()
    with pytest.raises(TimeoutError):
        async with own.kept(), asyncio.timeout(0):
            await asyncio.Event().wait()


@pytest.mark.parametrize("jump", [-24 * HOUR, 24 * HOUR])
@pytest.mark.any_backend
async def test_a_clock_that_jumps_takes_no_lease_away_from_its_holder(
    parts: Parts, clocks: Clocks, looks: list[float], jump: float
) -> None:
    kept, other = lease(parts), lease(parts)
    assert await kept.take()
    async with kept.kept():
        clocks.wall += jump
        for _ in range(3):
            await some(looks)
            assert not await other.take()
            clocks.pass_by(HOUR * 0.6)


async def test_a_holder_that_died_before_the_clock_was_put_back_holds_up_nobody_for_longer_than_the_lease(
    parts: Parts, clocks: Clocks
) -> None:
    dead, other = lease(parts), lease(parts)
    assert await dead.take()
    clocks.wall -= 24 * HOUR
    assert not await other.take()
    clocks.pass_by(HOUR / 2)
    assert not await other.take()
    clocks.pass_by(HOUR / 2 + 1)
    assert await other.take()
    assert not await dead.take()


@pytest.mark.any_backend
async def test_a_holder_that_is_alive_is_not_taken_for_dead(parts: Parts, clocks: Clocks) -> None:
    alive, other = lease(parts), lease(parts)
    for _ in range(6):
        assert await alive.take()
        assert not await other.take()
        clocks.pass_by(HOUR * 0.6)
