"""What a server does for an erasure that a command runs beside it: it drops the contents that it holds.

Every process asks the database twice a second whether an erasure is under way, and empties its cache of the stores
that this one touches. Once their rows are gone, a read that is still under way and began before is not believed: it is
done again, and its result is not kept. What the mover holds is dropped; what it is putting into the blob store just
then is waited for, since it takes that back itself.

A process is known by a row among the leases, which says also that it has dropped them, or that it is still moving. One
that could not ask for a while drops everything. So an erasure waits for all processes that are known, at most until
`FORGOTTEN_SECONDS` have passed, and for those who move until `MOVED_SECONDS` have.
"""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Callable, Collection
from enum import Enum

from app.contract import clock
from app.contract.errors import Unavailable
from app.storage.background import Background
from app.storage.contents.mover import Mover
from app.storage.contents.reading import ContentCache
from app.storage.rows.database import Database, Transaction
from app.storage.rows.statements import Statement

_log = logging.getLogger(__name__)

_INTERVAL_SECONDS = 0.5
_ANSWER_SECONDS = 1.0
_BLIND_SECONDS = 1.5
"""A process that has not seen the database for so long no longer trusts its cache."""
FORGOTTEN_SECONDS = 3.0
"""Longer than the blind time, one more interval and one more answer together."""

MOVED_SECONDS = 60.0
"""Longer than a batch of the mover takes on a slow blob store; an object's request ends after 30 seconds."""

_KNOWN_SECONDS = 300.0
"""A process whose row is older than this is taken for dead. Longer than the clocks of servers differ."""
_RENEW_SECONDS = 60.0
_ACKNOWLEDGED_LOOK_SECONDS = 0.05

_TOUCHED = Statement(
    """
    SELECT DISTINCT s.store_id, e.id, e.progress FROM erasures e JOIN erasure_subjects s ON s.erasure_id = e.id
     WHERE e.finished_at IS NULL
    """
)
_SAY = Statement(
    """
    INSERT INTO leases (name, holder, expires_at) VALUES (:name, :holder, :until)
    ON CONFLICT (name) DO UPDATE SET holder = :holder, expires_at = :until
    """
)
_DROP_DEAD = Statement("DELETE FROM leases WHERE name >= 'cache:' AND name < 'cache;' AND expires_at < :now")
_LEAVE = Statement("DELETE FROM leases WHERE name = :name")
_KNOWN = Statement("SELECT holder FROM leases WHERE name >= 'cache:' AND name < 'cache;' AND expires_at >= :now")


def acknowledgement(erasure_id: str, mark: int) -> str:
    """The text a process leaves in its row once it has dropped its contents.

    mark: the erasure's progress, `{"rows_gone": mark}`, once they are.
    """
    return f"{erasure_id} {mark}"


class Answer(Enum):
    """What is known of the processes when the wait ends."""

    ALL = "all said that they have dropped their contents"
    SILENT = "one said nothing: it was killed, or has dropped everything"
    MOVING = "one is still putting contents into the blob store"


async def wait_until_forgotten(database: Database, erasure_id: str, mark: int, until: float) -> Answer:
    """Wait until every process that is known has dropped its contents, or until a moment of the monotonic clock.

    For those that say that they are still moving contents it waits for `MOVED_SECONDS` more.
    """
    said = acknowledgement(erasure_id, mark)
    while True:
        holders = {row["holder"] for row in await database.fetch_all(_KNOWN, {"now": clock.now()})} - {said}
        if not holders:
            return Answer.ALL
        is_moving = _moving(said) in holders
        if time.monotonic() >= until + (MOVED_SECONDS if is_moving else 0):
            return Answer.MOVING if is_moving else Answer.SILENT
        await asyncio.sleep(_ACKNOWLEDGED_LOOK_SECONDS)


def _moving(said: str) -> str:
    return f"moving {said}"


class ErasureWatch:
    """Watches for erasures on behalf of what one process holds in memory."""

    def __init__(
        self,
        database: Database,
        cache: ContentCache,
        mover: Mover,
        drop_changes: Callable[[Collection[str]], None] = lambda store_ids: None,
    ) -> None:
        """drop_changes: told the stores whose changes, as far as memory holds them, must not be sent."""
        self._drop_changes = drop_changes
        self._database = database
        self._cache = cache
        self._mover = mover
        self._seen: set[tuple[str, int | None]] = set()
        """The erasures under way and their marks, as they were at the last look."""
        self._seen_at = 0.0
        """When the last look succeeded, on the monotonic clock."""
        self._loop = Background("the look for erasures", self._step, longest_pause_seconds=_INTERVAL_SECONDS)
        self._name = f"cache:{secrets.token_hex(8)}"
        self._said = ""
        self._said_at = 0.0

    async def start(self) -> None:
        """Begin in the background. Nothing may be cached before this returns.

        Raises:
            Unavailable: the database does not answer.

        """
        await self._say("")
        self._seen_at = time.monotonic()
        self._loop.start()

    async def stop(self) -> None:
        """End."""
        if self._loop.is_running:
            await self._loop.stop()
            try:
                await self._database.transact(lambda transaction: transaction.execute(_LEAVE, {"name": self._name}))
            except Unavailable as error:
                _log.info("the database did not hear that this process ends: %s", error)

    async def _step(self) -> float:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self.look()
                if time.monotonic() - self._said_at > _RENEW_SECONDS:
                    await self._say(self._said)
            self._seen_at = time.monotonic()
        except (Unavailable, TimeoutError):
            if time.monotonic() - self._seen_at > _BLIND_SECONDS:
                self._cache.clear()
        except Exception:
            self._cache.clear()
            raise
        return _INTERVAL_SECONDS

    async def look(self) -> None:
        """Ask once, drop what the answer names, and say so where somebody waits for it."""
        rows = await self._database.fetch_all(_TOUCHED, {})
        stores: dict[tuple[str, int | None], set[str]] = {}
        for row in rows:
            key = (row["id"], json.loads(row["progress"]).get("rows_gone"))
            stores.setdefault(key, set()).add(row["store_id"])
        for (erasure_id, mark), store_ids in stores.items():
            # Once for each mark: what was read since then is of rows that are still there.
            if (erasure_id, mark) not in self._seen:
                self._cache.drop_stores(store_ids)
                self._drop_changes(store_ids)
                self._mover.forget(store_ids)
            if mark is None:
                continue
            said = acknowledgement(erasure_id, mark)
            if self._mover.is_moving(store_ids):
                said = _moving(said)
            if said != self._said:
                await self._say(said)
        self._seen = set(stores)

    async def _say(self, said: str) -> None:
        now = clock.now()
        until = now + int(_KNOWN_SECONDS * clock.MICROSECONDS_PER_SECOND)

        async def work(transaction: Transaction) -> None:
            await transaction.execute(_DROP_DEAD, {"now": now})
            await transaction.execute(_SAY, {"name": self._name, "holder": said, "until": until})

        await self._database.transact(work)
        self._said, self._said_at = said, time.monotonic()
