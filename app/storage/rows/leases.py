"""Leases in the database: one holder at a time for work that every replica could do."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.contract import clock
from app.contract.errors import Overloaded, Unavailable
from app.storage.rows.database import Database, Transaction
from app.storage.rows.statements import Statement

_TAKE = Statement(
    """
    INSERT INTO leases (name, holder, expires_at) VALUES (:name, :holder, :until)
    ON CONFLICT (name) DO UPDATE SET holder = :holder, expires_at = :until
     WHERE leases.holder = :holder OR leases.expires_at < :now
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

    async def take(self) -> bool:
        """Take or extend the lease; False while another holder has it.

        Writes only when there is something to win: a lease that is ours for long enough yet, or another's, is read.
        """
        now = clock.now()
        row = await self._database.fetch_one(_FIND, {"name": self._name})
        if row is not None:
            is_ours = row["holder"] == self._holder
            if is_ours and row["expires_at"] - now > self._microseconds // 2:
                return True
            if not is_ours and row["expires_at"] >= now:
                return False
        parameters = {
            "name": self._name,
            "holder": self._holder,
            "now": now,
            "until": now + self._microseconds,
        }

        async def work(transaction: Transaction) -> bool:
            return await transaction.execute(_TAKE, parameters) == 1

        return await self._database.transact(work)

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

        async def keep() -> None:
            while True:
                await asyncio.sleep(self._seconds / 8)
                asked_at = loop.time()
                try:
                    async with asyncio.timeout(self._seconds / 8):
                        is_ours = await self.take()
                except (Unavailable, Overloaded, TimeoutError):
                    continue
                if sure.expired():
                    return
                sure.reschedule(asked_at + self._seconds / 2 if is_ours else asked_at)

        try:
            async with sure:
                keeper = asyncio.create_task(keep(), name=f"lease {self._name}")
                try:
                    yield
                finally:
                    keeper.cancel()
                    await asyncio.gather(keeper, return_exceptions=True)
        except TimeoutError:
            if not sure.expired():
                raise
            raise LeaseLost(f"the lease {self._name!r} was lost") from None

    async def release(self) -> None:
        """Give the lease back, if it is ours."""

        async def work(transaction: Transaction) -> None:
            await transaction.execute(_RELEASE, {"name": self._name, "holder": self._holder})

        await self._database.transact(work)
