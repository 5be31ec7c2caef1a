"""A page of changes, and whether anything is missing on it."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.storage.rows.database import Database, Row
from app.storage.rows.erased import erased_deletions


@dataclass(frozen=True, slots=True)
class ChangePage:
    """Changes in ascending order of `seq`; `next_after` is how far the page reaches, `last_seq` how far the store.

    `truncated`: some changes after the page's beginning and up to `next_after` are gone.
    """

    rows: Sequence[Row]
    last_seq: int
    next_after: int
    has_more: bool
    truncated: bool
    erased: frozenset[str] = frozenset()
    """The IDs of those that are the deletion of an erased memory."""

    def first(self, after: int) -> Sequence[Row]:
        """The changes that follow `after`, the page's beginning, without a gap."""
        return [row for number, row in enumerate(self.rows, after + 1) if row["seq"] == number]


async def page_of(database: Database, rows: Sequence[Row], after: int, limit: int) -> ChangePage:
    """The page after the number `after`, from what `queries.PAGE` found with one more than `limit`."""
    last_seq = rows[0]["last_seq"]
    found = [row for row in rows if row["seq"] is not None]
    has_more = len(found) > limit
    found = found[:limit]
    # Behind the last page nothing is left, so it reaches to the newest number, whether its change is there or not.
    next_after = found[-1]["seq"] if has_more else last_seq
    erased = await erased_deletions(database, found)
    return ChangePage(found, last_seq, next_after, has_more, next_after - after != len(found), erased)
