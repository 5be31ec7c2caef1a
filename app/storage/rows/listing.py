"""Pages of what was made in a room, newest first, by keyset: `created_at` and, within a microsecond, `id`."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.contract import cursors
from app.storage.rows.database import Database, Row
from app.storage.rows.statements import Statement


async def newest_first(
    database: Database,
    statement: Statement,
    parameters: Mapping[str, Any],
    *,
    listing: Sequence[str | int | bool | None],
    limit: int,
    page: str | None,
) -> tuple[list[Row], str | None]:
    """A page of rows, and the cursor of the next one, None after the last row.

    statement: its rows have `created_at` and `id`, by which they are ordered, descending. It takes `limit` and, if
        `page` is given, begins behind `before` and `before_id`.
    listing: what the cursor belongs to: the name of the listing, whose it is, its filters.

    Raises:
        InvalidRequest: `page` is no cursor of this listing.

    """
    before, before_id = cursors.decode(listing, page, (int, str)) if page is not None else (None, None)
    one_more = {**parameters, "before": before, "before_id": before_id, "limit": limit + 1}
    rows = await database.fetch_all(statement, one_more)
    items = list(rows[:limit])
    if len(rows) <= limit:
        return items, None
    return items, cursors.encode(listing, (items[-1]["created_at"], items[-1]["id"]))
