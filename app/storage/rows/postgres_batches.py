"""Mutations that wait together commit together.

While groups are under way, what arrives waits; then all of it goes as one statement and one commit. Under load many
mutations share them, which are most of what one costs; a lone mutation goes at once and pays nothing
(docs/performance.md). SQLite's writer thread shares commits in its own way (`app.storage.rows.sqlite`).
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg

from app.contract.errors import Overloaded
from app.storage.rows.database import Row
from app.storage.rows.statements import Compiled, Parameters

_ROOM = 2
"""For two mutations one by one, of the same store or not: one commits while the next arrives. A group of several fills
it alone, since the larger the groups, the less each of their mutations costs."""
_GROUP_SIZE = 64


class _Item:
    __slots__ = ("answer", "deadline", "parameters", "row_id", "store_id")

    def __init__(self, parameters: Parameters, store_id: str, row_id: str, deadline: float) -> None:
        self.parameters = parameters
        self.store_id = store_id
        self.row_id = row_id
        self.deadline = deadline
        self.answer: asyncio.Future[Row | None] = asyncio.get_running_loop().create_future()


class GroupCommit:
    """Runs one mutation (`app.storage.rows.statements.Mutation`) for many callers.

    A group has at most one mutation of a store, in the order of the stores' IDs, and a mutation locks rows of its own
    store only. So groups, of whatever process, never wait for each other in a circle.
    """

    def __init__(
        self,
        many: Compiled,
        connect: Callable[[], AbstractAsyncContextManager[Any]],
        run_alone: Callable[[Parameters], Awaitable[Row | None]],
        wait_seconds: float,
    ) -> None:
        """`many` takes arrays; `connect` gives a connection for one use; `run_alone` runs the mutation for one."""
        self._many = many
        self._connect = connect
        self._run_alone = run_alone
        self._wait_seconds = wait_seconds
        self._waiting: deque[_Item] = deque()
        self._room = _ROOM
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, parameters: Parameters, *, store_id: str, row_id: str) -> Row | None:
        """The row that was changed, committed; None if the mutation did not apply.

        Raises:
            Overloaded: its turn did not come in time.
        """
        if self._room and not self._waiting:
            self._room -= 1
            try:
                return await self._run_alone(parameters)
            finally:
                self._end(1)
        item = _Item(parameters, store_id, row_id, time.monotonic() + self._wait_seconds)
        self._waiting.append(item)
        return await item.answer

    def _end(self, room: int) -> None:
        self._room += room
        while self._room and (group := self._next_group()):
            needed = 1 if len(group) == 1 else _ROOM
            self._room -= needed
            task = asyncio.create_task(self._serve(group, needed))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next_group(self) -> list[_Item]:
        """The writes whose turn it is, one of a store; none if there is not room.

        Those that gave up or waited too long are dropped.
        """
        group: dict[str, _Item] = {}
        left: deque[_Item] = deque()
        now = time.monotonic()
        for item in self._waiting:
            if item.answer.done():
                continue
            if item.deadline < now:
                item.answer.set_exception(Overloaded("the database is busy; try again"))
            elif len(group) == _GROUP_SIZE or item.store_id in group:
                left.append(item)
            else:
                group[item.store_id] = item
        if len(group) > 1 and self._room < _ROOM:
            return []
        self._waiting = left
        return [group[store_id] for store_id in sorted(group)]

    async def _serve(self, group: list[_Item], room: int) -> None:
        try:
            if len(group) == 1 or not await self._run_together(group):
                for item in group:
                    await self._answer_alone(item)
        except BaseException as error:
            for item in group:
                if not item.answer.done():
                    item.answer.set_exception(error) if isinstance(error, Exception) else item.answer.cancel()
            if not isinstance(error, Exception):
                raise
        finally:
            self._end(room)

    async def _run_together(self, group: list[_Item]) -> bool:
        """Run all in one transaction. False if the database refused one of them, and so did none."""
        columns = [[item.parameters[name] for item in group] for name in self._many.names]
        try:
            async with self._connect() as connection:
                rows = await connection.fetch(self._many.sql, *columns)
        except asyncpg.PostgresError:
            return False
        found = {row["id"]: row for row in rows}
        for item in group:
            if not item.answer.done():
                item.answer.set_result(found.get(item.row_id))
        return True

    async def _answer_alone(self, item: _Item) -> None:
        if item.answer.done():
            return
        try:
            row = await self._run_alone(item.parameters)
        except Exception as error:
            if not item.answer.done():
                item.answer.set_exception(error)
            return
        if not item.answer.done():
            item.answer.set_result(row)
