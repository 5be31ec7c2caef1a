"""Asking the database what came of a transaction whose end nobody heard of."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from app.contract.errors import Overloaded, Unavailable
from app.storage.rows.database import Database, Transaction

T = TypeVar("T")


async def look_after(
    error: BaseException, database: Database, look: Callable[[Transaction], Awaitable[T]], not_known: str
) -> T:
    """What a look at the rows finds, after a transaction on them ended with an error.

    look: takes the lock first that the transaction had, which may still be under way in the database.
    not_known: what to say if the database does not answer this either.

    Raises:
        Unavailable: the database does not answer, and the error said no more than that; else the error itself.

    """
    try:
        return await database.transact(look)
    except (Unavailable, Overloaded):
        if not isinstance(error, Unavailable | Overloaded):
            raise error from None
        raise Unavailable(f"the database does not answer: {not_known}") from error
