"""Leases in the database: one holder at a time for work that every replica could do.

A row says until when its lease lasts, by the clock of its holder. Clocks jump, and those of two hosts differ. So a row
that nobody has written for as long as the lease lasts is free, whatever it says; and a holder never relies on a date
that lies further ahead than that. A clock that runs ahead may still take a lease away from a holder that is alive:
`kept` has it notice. The work itself must bear being done by two for a moment.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.contract import clock
from app.contract.errors import Overloaded, Unavailable
from app.storage.background import Background
from app.storage.rows.database import Database, Transaction
from app.storage.rows.statements import Statement

_TAKE = Statement(
    """
    INSERT INTO leases (name, holder, expires_at) VALUES (:name, :holder, :until)
    ON CONFLICT (name) DO UPDATE SET holder = :holder, expires_at = :until
     WHERE leases.holder = :holder OR leases.expires_at < :now
        OR (leases.holder = :dead_holder AND leases.expires_at = :dead_until)
    """
)
_FIND = Statement("SELECT holder, expires_at FROM leases WHERE name = :name")
_RELEASE = Statement("DELETE FROM leases WHERE name = :name AND holder = :holder")


class LeaseLost(Exception):
    """The work was ended, since its lease may be another holder's by now."""


class Lease:
    """One named lease. Taking it again extends it; a holder that dies loses it when it runs out."""

    def __init__(self, database: Database, name: str, seconds: float) -> None:
        self._database = database
        self._name = name
        self._seconds = seconds
        self._microseconds = int(seconds * clock.MICROSECONDS_PER_SECOND)
        self._holder = secrets.token_hex(8)
        self._seen: tuple[str, int] | None = None
        """Another's holder and date, as they were at the last look, and since `_seen_at` on the monotonic clock."""
        self._seen_at = 0.0

    async def take(self) -> bool:
        """Take or extend the lease; False while another holder has it.

        Writes only when there is something to win: a lease that is ours for long enough yet, or another's, is read.
        """
        now = clock.now()
        row = await self._database.fetch_one(_FIND, {"name": self._name})
        if row is not None:
            left = row["expires_at"] - now
            is_ours = row["holder"] == self._holder
            if is_ours and self._microseconds // 2 < left <= self._microseconds:
                return True
            if not is_ours and left >= 0 and not self._is_dead(row["holder"], row["expires_at"]):
                return False
        parameters = {
            "name": self._name,
            "holder": self._holder,
            "now": now,
            "until": now + self._microseconds,
            "dead_holder": None if self._seen is None else self._seen[0],
            "dead_until": None if self._seen is None else self._seen[1],
        }

        async def work(transaction: Transaction) -> bool:
            return await transaction.execute(_TAKE, parameters) == 1

        return await self._database.transact(work)

    def _is_dead(self, holder: str, expires_at: int) -> bool:
        """Whether another holder has not extended the lease for as long as it lasts."""
        if self._seen != (holder, expires_at):
            self._seen, self._seen_at = (holder, expires_at), time.monotonic()
        return time.monotonic() - self._seen_at > self._seconds

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Extend the lease, which was taken a moment ago, for as long as the block runs.

        Raises:
            LeaseLost: in the middle of the block, at the latest when the lease has run out: the database was away, or
                this process was frozen, for longer than the lease, and another holder may have it.

        """
        loop = asyncio.get_running_loop()
        # An extension is only written when half of the time is over, so no more than that is sure.
        sure = asyncio.timeout(self._seconds / 2)

        pause = self._seconds / 8

        async def keep() -> float:
            asked_at = loop.time()
            try:
                async with asyncio.timeout(pause):
                    is_ours = await self.take()
            except (Unavailable, Overloaded, TimeoutError):
                return pause
            if not sure.expired():
                sure.reschedule(asked_at + self._seconds / 2 if is_ours else asked_at)
            return pause

        keeper = Background(f"the keeping of the lease {self._name!r}", keep, longest_pause_seconds=pause)
        try:
            async with sure:
                keeper.start(after_seconds=pause)
                try:
                    yield
                finally:
                    await keeper.stop()
        except TimeoutError:
            if not sure.expired():
                raise
            raise LeaseLost(f"the lease {self._name!r} was lost") from None

    async def release(self) -> None:
        """Give the lease back, if it is ours."""

        async def work(transaction: Transaction) -> None:
            await transaction.execute(_RELEASE, {"name": self._name, "holder": self._holder})

        await self._database.transact(work)
