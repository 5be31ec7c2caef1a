"""Reading the audit log, and checking that nobody has tampered with it."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

from app.audit import chain, queries
from app.contract import cursors
from app.storage.rows.database import Database, Row

_listing = lru_cache(queries.listing)

_BATCH = 500

Fault = Literal["missing", "changed", "unexpected"]


@dataclass(frozen=True, slots=True)
class AuditFilters:
    """Filters of a listing; None is no filter. Times in microseconds since 1970, inclusive.

    workspace_id: None is every workspace, and what belongs to none; for the administrator.
    """

    workspace_id: str | None = None
    action: str | None = None
    subject: str | None = None
    created_from: int | None = None
    created_to: int | None = None

    def can_match(self) -> bool:
        """False if no entry can meet them: actions and IDs are printable ASCII."""
        texts = (self.action, self.subject)
        return all(text.isascii() and text.isprintable() for text in texts if text is not None)


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the chain: the number and digest of the newest entry; 0 and zeros before any."""

    seq: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check of the whole chain found.

    head: the last entry that was checked. bad_seq: the first number where something is wrong, None if nothing is.
    fault: "missing", no entry has this number; "changed", its digest does not follow from it and the entry before, so
    one of them is not what was written, or they changed places; "unexpected", an entry beyond the end.
    """

    head: Head
    bad_seq: int | None = None
    fault: Fault | None = None


class AuditLog:
    """The audit log of every workspace."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_page(
        self, filters: AuditFilters, limit: int, *, after: int = 0, page: str | None = None
    ) -> tuple[Sequence[Row], str | None]:
        """A page of the entries with numbers above `after`, oldest first, and the cursor of the next one.

        Raises:
            InvalidRequest: `page` is no cursor of this listing.

        """
        listing = ("audit", after, *asdict(filters).values())
        if page is not None:
            (after,) = cursors.decode(listing, page, (int,))
        rows = await self._entries(filters, after, limit + 1)
        if len(rows) <= limit:
            return rows, None
        return rows[:limit], cursors.encode(listing, (rows[limit - 1]["seq"],))

    async def export(self, filters: AuditFilters, *, after: int = 0) -> AsyncIterator[Row]:
        """Every entry that is there now, oldest first, as they are read."""
        return self._up_to((await self.head()).seq, filters, after)

    async def _up_to(self, until: int, filters: AuditFilters, after: int) -> AsyncIterator[Row]:
        while rows := await self._entries(filters, after, _BATCH, until=until):
            for row in rows:
                yield row
            after = rows[-1]["seq"]

    async def head(self) -> Head:
        """The end of the chain, as the log itself keeps it."""
        row = await self._database.fetch_one(queries.HEAD, {})
        assert row is not None
        return Head(row["seq"], bytes(row["sha256"]))

    async def verify(self, expected: Head | None = None) -> Verdict:
        """Check every entry against its digest and the one before.

        expected: an end of the chain that was noted earlier. Somebody with write access to
        the database can shorten the log, or rewrite it from some entry on, so that it fits; only against a noted
        end does that show.
        """
        head = await self.head()
        checked = Head(0, chain.START)
        async for row in self._up_to(head.seq, AuditFilters(), 0):
            verdict = _follows(checked, row)
            if verdict is not None:
                return verdict
            checked = Head(row["seq"], bytes(row["sha256"]))
            if row["seq"] == head.seq and checked != head:
                return Verdict(checked, row["seq"], "changed")
            if expected is not None and row["seq"] == expected.seq and checked != expected:
                return Verdict(checked, row["seq"], "changed")
        if checked.seq < max(head.seq, 0 if expected is None else expected.seq):
            return Verdict(checked, checked.seq + 1, "missing")
        last = await self._database.fetch_one(queries.LAST, {})
        if last is not None and last["last"] is not None and last["last"] > last["seq"]:
            return Verdict(checked, last["seq"] + 1, "unexpected")
        return Verdict(checked)

    async def _entries(
        self, filters: AuditFilters, after: int, limit: int, *, until: int | None = None
    ) -> Sequence[Row]:
        if not filters.can_match():
            return []
        parameters: dict[str, Any] = {**asdict(filters), "until": until}
        used = tuple(name for name in queries.FILTERS if parameters[name] is not None)
        return await self._database.fetch_all(_listing(used), {**parameters, "seq": after, "limit": limit})


def _follows(before: Head, row: Row) -> Verdict | None:
    """None if the entry is the one after `before`, as it was written."""
    expected = before.seq + 1
    if row["seq"] != expected:
        return Verdict(before, expected, "missing")
    if chain.digest(before.sha256, row) != bytes(row["sha256"]):
        return Verdict(before, expected, "changed")
    return None
