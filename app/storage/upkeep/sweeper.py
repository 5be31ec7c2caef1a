"""Housekeeping in the background: what a crash left staged, deleted stores, retention, orphans, erased content.

Every replica runs a sweeper; a lease lets one at a time do the rounds. What this process itself deleted or erased
is cleaned up at once, on `wake`, lease or not: each step can be done twice and by two.
"""

import contextlib
import logging
import time
from dataclasses import asdict, dataclass

from app.contract import clock
from app.contract.errors import Overloaded, Unavailable
from app.storage.background import Background
from app.storage.contents.collector import Collector
from app.storage.contents.mover import Mover
from app.storage.metrics import STAGED, STAGED_AGE, SWEEP_SECONDS, SWEEPS, SWEPT_AT
from app.storage.rows.database import Database
from app.storage.rows.feed_readers import forget_old_readers
from app.storage.rows.leases import Lease, LeaseLost
from app.storage.rows.statements import Statement
from app.storage.upkeep.deleted_stores import Purger
from app.storage.upkeep.expired_versions import Retention
from app.storage.upkeep.installation import SharedBlobStore
from app.storage.upkeep.orphans import Orphans

_log = logging.getLogger(__name__)

_TICK_SECONDS = 2.0
"""Between two looks for content that was left behind in the stage."""
_LEASE_SECONDS = 30.0

_STAGE = Statement("SELECT count(*) AS number, min(staged_at) AS oldest FROM staged_contents")


@dataclass(slots=True)
class Swept:
    """What one pass did."""

    moved: int = 0
    stores_purged: int = 0
    versions_expired: int = 0
    orphans_condemned: int = 0
    blobs_removed: int = 0


async def measure_stage(database: Database) -> None:
    """Set the gauges of the stage: how many contents wait, and for how long the oldest has."""
    row = await database.fetch_one(_STAGE, {})
    assert row is not None
    oldest = row["oldest"]
    STAGED.set(row["number"])
    STAGED_AGE.set(0 if oldest is None else max(0, clock.now() - oldest) / clock.MICROSECONDS_PER_SECOND)


class Sweeper:
    """Runs the housekeeping of one process."""

    def __init__(
        self,
        database: Database,
        *,
        mover: Mover,
        collector: Collector,
        purger: Purger,
        retention: Retention,
        orphans: Orphans,
        interval_seconds: float,
    ) -> None:
        self._database = database
        self._mover = mover
        self._collector = collector
        self._purger = purger
        self._retention = retention
        self._orphans = orphans
        self._interval = interval_seconds
        self._lease = Lease(database, "sweeper", _LEASE_SECONDS)
        self._is_wanted = False
        """Something was deleted or erased here."""
        self._next_sweep = 0.0
        self._loop = Background("housekeeping", self._step, outages=(SharedBlobStore, LeaseLost))

    def start(self) -> None:
        """Begin in the background."""
        self._next_sweep = time.monotonic() + min(self._interval, _TICK_SECONDS)
        self._loop.start(after_seconds=_TICK_SECONDS)

    async def stop(self) -> None:
        """End, between two steps or in the middle of one: every step can be done again."""
        if self._loop.is_running:
            await self._loop.stop()
            with contextlib.suppress(Unavailable, Overloaded):  # Else it runs out by itself.
                await self._lease.release()

    def wake(self) -> None:
        """Clean up soon: something was deleted or erased."""
        self._is_wanted = True
        self._loop.wake()

    async def sweep(self, *, all_ages: bool = False) -> Swept:
        """One whole pass. `all_ages` also moves content that was staged only just now.

        Raises:
            Unavailable: the database or the blob store does not answer; the rest waits for the next pass.

        """
        started = time.monotonic()
        try:
            swept = Swept(
                moved=await self._mover.move_left_behind(all_ages=all_ages),
                stores_purged=await self._purger.purge(),
                versions_expired=await self._retention.expire(),
                orphans_condemned=await self._orphans.condemn_all(),
                blobs_removed=await self._collector.collect(),
            )
            await forget_old_readers(self._database)
        except Exception:
            SWEEPS.labels("failed").inc()
            raise
        SWEEPS.labels("done").inc()
        SWEEP_SECONDS.observe(time.monotonic() - started)
        SWEPT_AT.set_to_current_time()
        return swept

    async def _step(self) -> float:
        if self._is_wanted:
            self._is_wanted = False
            await self._clean_up()
        if await self._lease.take():
            await self._mover.move_left_behind()
            await self._clean_up()
            if time.monotonic() >= self._next_sweep:
                self._next_sweep = time.monotonic() + self._interval
                async with self._lease.kept():
                    swept = await self.sweep()
                _log.info("swept: %s", asdict(swept))
        return _TICK_SECONDS

    async def _clean_up(self) -> None:
        await self._purger.purge()
        await self._collector.collect()
