"""Leases in the database: one holder at a time for work that every replica could do."""

import secrets

from app.contract import clock
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


class Lease:
    """One named lease. Taking it again extends it; a holder that dies loses it when it runs out."""

    def __init__(self, database: Database, name: str, seconds: float) -> None:
        self._database = database
        self._name = name
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

    async def release(self) -> None:
        """Give the lease back, if it is ours."""

        async def work(transaction: Transaction) -> None:
            await transaction.execute(_RELEASE, {"name": self._name, "holder": self._holder})

        await self._database.transact(work)
