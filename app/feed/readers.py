"""How far each reader has read: noted in memory by every read of the feed, and written every few seconds.

A note costs a look-up in a dictionary. What was noted is lost if the process is killed before it is written: then a
reader counts as further behind than it is, never as further ahead. A key that several programs share counts as far as
the furthest of them.
"""

import asyncio
import logging
import time
from collections.abc import Mapping

from app.contract import clock
from app.contract.actors import Caller
from app.contract.errors import MemstoreError, for_log
from app.storage.background import Background
from app.storage.rows.database import Database, Transaction
from app.storage.rows.feed_readers import API_KEY, LEARNED_OF_THE_END, NOTE, NOTE_END, SESSION_TOKEN

_log = logging.getLogger(__name__)

_GATHERING_SECONDS = 2.0
"""From a note to its writing."""
_AGAIN_SECONDS = 24 * 3600.0
"""A reader that stays where it is gets a new date so often."""
_MOST = 10_000
"""Readers that are remembered. Of more, those who came first are written again when they come again."""

_Reader = tuple[str, str, str]
"""A store's ID, the kind of the reader, and its ID."""


class FeedReaders:
    """The readers that one process has seen."""

    def __init__(self, database: Database) -> None:
        """Nothing runs before the first note."""
        self._database = database
        self._written: dict[_Reader, tuple[int, float]] = {}
        """The number that is in the database at least, and when it was written."""
        self._noted: dict[_Reader, int] = {}
        self._loop = Background("the writing of feed readers", self._step)

    def note(self, caller: Caller, store_id: str, seq: int) -> None:
        """The caller has certainly seen every change up to this number; 0: it has begun to read."""
        reader = _reader(caller, store_id)
        number, written_at = self._written.get(reader, (-1, 0.0))
        if seq <= number and time.monotonic() - written_at < _AGAIN_SECONDS:
            return
        if seq <= self._noted.get(reader, -1) or (len(self._noted) >= _MOST and reader not in self._noted):
            return
        self._noted[reader] = seq
        self._loop.start()
        self._loop.wake()

    def note_end(self, caller: Caller, store_id: str) -> None:
        """The caller was told that the store is not there."""
        self.note(caller, store_id, LEARNED_OF_THE_END)

    def seen(self, caller: Caller, store_id: str) -> int:
        """How far the caller is known to have come, by this process; -1: nothing is known."""
        reader = _reader(caller, store_id)
        return max(self._noted.get(reader, -1), self._written.get(reader, (-1, 0.0))[0])

    async def close(self) -> None:
        """Write what is still held, if the database answers."""
        await self._loop.stop()
        await self._write()

    async def _step(self) -> float | None:
        if self._noted:
            await asyncio.sleep(_GATHERING_SECONDS)
            await self._write()
        return 0 if self._noted else None

    async def _write(self) -> None:
        noted, self._noted = self._noted, {}
        if not noted:
            return
        now = clock.now()

        async def work(transaction: Transaction) -> None:
            # In one order everywhere, so that no two processes wait for each other.
            rows = [_row(reader, seq, now) for reader, seq in sorted(noted.items())]
            for statement, is_end in ((NOTE, False), (NOTE_END, True)):
                if part := [row for row in rows if (row["seq"] == LEARNED_OF_THE_END) is is_end]:
                    await transaction.execute_many(statement, part)

        try:
            await self._database.transact(work)
        except MemstoreError as error:
            _log.info("how far the feed was read can't be written yet: %s", for_log(error))
            self._keep(noted)
        except Exception:
            _log.exception("how far the feed was read can't be written")
        else:
            written_at = time.monotonic()
            for reader, seq in noted.items():
                self._written.pop(reader, None)
                self._written[reader] = (seq, written_at)
            while len(self._written) > _MOST:
                del self._written[next(iter(self._written))]

    def _keep(self, noted: Mapping[_Reader, int]) -> None:
        for reader, seq in noted.items():
            if len(self._noted) < _MOST:
                self._noted[reader] = max(seq, self._noted.get(reader, -1))


def _reader(caller: Caller, store_id: str) -> _Reader:
    session = caller.session
    return (store_id, API_KEY, caller.actor.id) if session is None else (store_id, SESSION_TOKEN, session.token_id)


def _row(reader: _Reader, seq: int, now: int) -> dict[str, str | int]:
    store_id, kind, reader_id = reader
    return {"store_id": store_id, "reader_type": kind, "reader_id": reader_id, "seq": seq, "now": now}
