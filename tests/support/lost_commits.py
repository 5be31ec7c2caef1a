"""A database whose transactions end with an error that says nothing of what became of them.

It is a real one, of either kind. At the transaction that is asked for it commits and then raises, as when a connection
is lost in the commit, or a caller is cancelled by Ctrl-C or a deploy; or it rolls back and raises the same.
"""

import ast
import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import app
from app.storage.rows.database import Database, Transaction

ROOM = Path(app.__file__).parent
_DATABASES = ROOM / "storage" / "rows"


@dataclass(frozen=True, order=True)
class Site:
    """A place in the product that runs a transaction."""

    module: str
    function: str
    method: str
    """`transact`, or `mutate`: only PostgreSQL is asked for the latter."""
    first_line: int
    last_line: int

    def __str__(self) -> str:
        return f"app/{self.module}:{self.first_line} {self.function}"


@cache
def sites() -> frozenset[Site]:
    """Every call of a `transact` or `mutate` in the product, but those in the databases themselves."""
    found = set()
    for file in ROOM.rglob("*.py"):
        if _DATABASES in file.parents and file.name not in ("leases.py", "outcomes.py"):
            continue
        module = file.relative_to(ROOM).as_posix()
        for function in ast.walk(ast.parse(file.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                found |= {
                    Site(module, function.name, method, call.lineno, call.end_lineno or call.lineno)
                    for call in ast.walk(function)
                    if isinstance(call, ast.Call) and (method := _name(call.func)) in ("transact", "mutate")
                }
    return frozenset(_outermost(found))


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _outermost(found: set[Site]) -> list[Site]:
    """A call in a nested function was found in the outer one as well; the line says which is the same."""
    by_line: dict[tuple[str, int], Site] = {}
    for site in sorted(found):
        by_line.setdefault((site.module, site.first_line), site)
    return list(by_line.values())


class RolledBack(Exception):
    """Ends a transaction that shall not be committed."""


class LostCommits:
    """The database `real`; at its `at`th transaction, counted from `arm`, the outcome gets lost."""

    def __init__(self, real: Database) -> None:
        self._real = real
        self._at = self._number = 0
        self._is_committed = False
        self._error: BaseException | None = None
        self._task: asyncio.Task[Any] | None = None
        self.after_commit: Callable[[], Awaitable[None]] | None = None
        """Called between the commit and the error."""
        self.used: set[Site] = set()
        """The places that ran a transaction."""

    def arm(self, at: int, error: BaseException, *, committed: bool) -> None:
        """From now on, the `at`th transaction of this task ends with `error`, `committed` or rolled back."""
        self._task = asyncio.current_task()
        self._at, self._number, self._error, self._is_committed = at, 0, error, committed

    def disarm(self) -> bool:
        """No more errors. Whether the one asked for was raised."""
        was_raised = self._number >= self._at > 0
        self._at = 0
        return was_raised

    @property
    def count(self) -> int:
        """Transactions since `arm`."""
        return self._number

    @property
    def on_commit(self) -> Any:
        return self._real.on_commit

    @on_commit.setter
    def on_commit(self, callback: Any) -> None:
        self._real.on_commit = callback

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def scrub(self, tables: Any) -> tuple[list[Any], list[str]]:
        """Left out: it is no transaction, and takes seconds each time."""
        return [], []

    async def transact(self, work: Any, *, store_id: str | None = None) -> Any:
        self._note_site()

        async def and_roll_back(transaction: Transaction) -> None:
            await work(transaction)
            raise RolledBack

        async def run() -> Any:
            return await self._real.transact(work, store_id=store_id)

        async def not_run() -> Any:
            return await self._real.transact(and_roll_back, store_id=store_id)

        return await self._perhaps_lost(run, not_run)

    async def mutate(self, mutation: Any, parameters: Any, *, store_id: str, row_id: str) -> Any:
        self._note_site()

        async def run() -> Any:
            return await self._real.mutate(mutation, parameters, store_id=store_id, row_id=row_id)

        async def not_run() -> Any:
            raise RolledBack

        return await self._perhaps_lost(run, not_run)

    async def _perhaps_lost(self, run: Callable[[], Awaitable[Any]], not_run: Callable[[], Awaitable[Any]]) -> Any:
        if self._at == 0 or asyncio.current_task() is not self._task:
            return await run()
        self._number += 1
        if self._number != self._at:
            return await run()
        assert self._error is not None
        if self._is_committed:
            await run()
            if self.after_commit is not None:
                await self.after_commit()
        else:
            with contextlib.suppress(RolledBack):
                await not_run()
        raise self._error

    def _note_site(self) -> None:
        frame = sys._getframe(2)
        while frame is not None:
            file = frame.f_code.co_filename
            if file.startswith(f"{ROOM}/"):
                module, line = file.removeprefix(f"{ROOM}/"), frame.f_lineno
                self.used |= {
                    site for site in sites() if site.module == module and site.first_line <= line <= site.last_line
                }
            frame = frame.f_back  # type: ignore[assignment]
