"""Refused attempts, gathered in memory and written to the audit log together.

A refusal must cost a stranger more than it costs us: noting one is a look-up in a dictionary, equal ones are counted,
and what a window may add to the log has a bound, whatever comes. The request never waits for the log. What was noted
is lost if the process is killed before it is written, at most `_GATHERING_SECONDS` or a window's worth.
"""

import asyncio
import json
import logging
from dataclasses import dataclass
from typing import NamedTuple

from app.audit.log import Entry, append
from app.contract import clock
from app.contract.actors import Caller
from app.contract.errors import MemstoreError
from app.storage.background import Background
from app.storage.rows.database import Database, Transaction

_log = logging.getLogger(__name__)

ACTION = "request.refused"

_GATHERING_SECONDS = 1.0
"""From the first refusal after a quiet time to its entry."""
_WINDOW_SECONDS = 60.0
"""Between two writings while refusals go on."""
_MOST_KINDS = 50
"""Different refusals that one window tells apart."""


class Attempt(NamedTuple):
    """What a refusal is told by; equal ones share an entry. Nothing in it is the client's to choose."""

    route: str | None
    """Method and template, as `GET /v1/memory_stores/{memory_store_id}`; None where there is no such route."""
    status: int
    error: str
    code: str | None
    workspace_id: str | None
    actor_type: str | None
    actor_id: str | None


@dataclass(slots=True)
class _Count:
    number: int
    first_at: int
    last_at: int
    request_id: str | None

    def entry(self, attempt: Attempt | None) -> Entry:
        """None: those beyond the bound, whatever they were."""
        told = {} if attempt is None else {
            "route": attempt.route, "status": attempt.status, "error": attempt.error, "code": attempt.code,
        }  # fmt: skip
        detail = {
            **told,
            "count": self.number,
            "first_at": clock.rfc3339(self.first_at),
            "last_at": clock.rfc3339(self.last_at),
        }
        return Entry(
            action=ACTION if attempt is not None else f"{ACTION}_more",
            workspace_id=attempt.workspace_id if attempt else None,
            actor_type=attempt.actor_type if attempt else None,
            actor_id=attempt.actor_id if attempt else None,
            subject=None,
            detail=json.dumps(detail, ensure_ascii=False, sort_keys=True, separators=(",", ":")),
            request_id=self.request_id,
        )


class Refusals:
    """Those of one process."""

    def __init__(self, database: Database) -> None:
        """Nothing is written before `start`."""
        self._database = database
        self._counts: dict[Attempt | None, _Count] = {}
        self._writing = asyncio.Lock()
        self._loop = Background("the writing of refused requests", self._step)

    def start(self) -> None:
        """Begin to write in the background."""
        self._loop.start()

    async def stop(self) -> None:
        """Write what is still held, and end."""
        if not self._loop.is_running:
            return
        async with self._writing:
            await self._loop.stop()
        await self._write()

    def note(self, error: MemstoreError, route: str | None, caller: Caller | None, request_id: str) -> None:
        """Remember a refusal; the `is_audited` of its error says whether it should be."""
        attempt: Attempt | None = Attempt(
            route,
            error.status,
            error.type,
            getattr(error, "error_code", None),
            caller.workspace_id if caller else None,
            caller.actor.type if caller else None,
            caller.actor.id if caller else None,
        )
        self._add(attempt, _Count(1, now := clock.now(), now, request_id))
        self._loop.wake()

    def _add(self, attempt: Attempt | None, more: _Count) -> None:
        count = self._counts.get(attempt)
        if count is None and len(self._counts) >= _MOST_KINDS:
            attempt, more.request_id = None, None
            count = self._counts.get(None)
        if count is None:
            self._counts[attempt] = more
            return
        count.number += more.number
        count.first_at = min(count.first_at, more.first_at)
        count.last_at = max(count.last_at, more.last_at)

    async def _step(self) -> float | None:
        if self._counts:
            await asyncio.sleep(_GATHERING_SECONDS)
            await self._write()
            await asyncio.sleep(_WINDOW_SECONDS - _GATHERING_SECONDS)
        return 0 if self._counts else None

    async def _write(self) -> None:
        async with self._writing:
            await self._write_counts()

    async def _write_counts(self) -> None:
        counts, self._counts = self._counts, {}
        if not counts:
            return
        entries = [count.entry(attempt) for attempt, count in counts.items()]

        async def work(transaction: Transaction) -> None:
            await append(transaction, *entries)

        try:
            await self._database.transact(work)
        except Exception as error:
            # Kept for the next time; the bound holds for old and new ones together.
            for attempt, count in counts.items():
                self._add(attempt, count)
            _log.warning("refused requests can't be written to the audit log yet: %s", error)
