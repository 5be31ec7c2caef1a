"""What the services need of a database, and how to open one from its URL."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from app.storage.rows.leftovers import Scrubbed
from app.storage.rows.statements import Batch, Mutation, Parameters, Statement

T = TypeVar("T")

Row = Mapping[str, Any]
"""One result row; columns by name. PostgreSQL gives an `asyncpg.Record`, SQLite a `sqlite3.Row`."""


def tell_nobody(store_id: str) -> None:
    """What `Database.on_commit` is before somebody sets it."""


class Reader(Protocol):
    """Reads of one moment."""

    async def fetch_one(self, statement: Statement, parameters: Parameters) -> Row | None:
        """The first row, or None."""
        ...

    async def fetch_all(self, statement: Statement, parameters: Parameters) -> Sequence[Row]:
        """Every row."""
        ...


class Transaction(Reader, Protocol):
    """An open write transaction. Raising out of it rolls it back."""

    async def execute(self, statement: Statement | Batch, parameters: Parameters) -> int:
        """Run for effect; the number of rows the (last) statement changed."""
        ...

    async def execute_many(self, statement: Statement, rows: Sequence[Parameters]) -> None:
        """Run for effect once for each row of parameters, without a round trip for each."""
        ...


Work = Callable[[Transaction], Awaitable[T]]
"""The body of a transaction. It may await nothing but its transaction: SQLite runs it on the writer thread."""


class Database(Protocol):
    """One database, shared by all requests of a process.

    Every method raises `app.contract.errors.Unavailable` when the database does not answer or can't store, and
    `Overloaded` when no connection or lock was available in time.
    """

    has_single_statement_mutations: bool
    """True where a whole mutation can be one data-modifying statement (PostgreSQL)."""

    on_commit: Callable[[str], None]
    """Called with a store's ID after this process committed a change that named it. For somebody to set."""

    async def scrub(self, tables: Sequence[str]) -> tuple[list[Scrubbed], list[str]]:
        """Overwrite what deleted rows of these tables left behind.

        The second part names what the database keeps elsewhere and can't be reached from here.
        """
        ...

    async def open(self) -> None:
        """Connect. To be awaited once, in the loop that serves."""
        ...

    async def require_writable(self) -> None:
        """Find out whether it takes writes; a server that fails over may answer reads alone."""
        ...

    async def close(self) -> None:
        """Wait for what is under way and disconnect."""
        ...

    async def fetch_one(self, statement: Statement, parameters: Parameters) -> Row | None:
        """Read one row, outside any transaction."""
        ...

    async def fetch_all(self, statement: Statement, parameters: Parameters) -> Sequence[Row]:
        """Read rows in one statement, outside any transaction."""
        ...

    def snapshot(self) -> AbstractAsyncContextManager[Reader]:
        """Reads that all see the database as it is at the first of them, however long they go on.

        They hold up nobody, but the database keeps what is changed meanwhile until they end.
        """
        ...

    async def mutate(self, mutation: Mutation, parameters: Parameters, *, store_id: str, row_id: str) -> Row | None:
        """Run a mutation of one store and commit; the row it changed, or None if it did not apply.

        `row_id` is the ID of that row: under load, mutations of several stores share a transaction.
        """
        ...

    async def transact(self, work: Work[T], *, store_id: str | None = None) -> T:
        """Run `work` in one write transaction and commit.

        `store_id` names the store it changes: a busy store then waits its turn before it takes a connection.
        After a deadlock or a serialisation failure the work is run again, so it must have no other effects.
        """
        ...
