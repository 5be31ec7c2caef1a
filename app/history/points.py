"""A point in a store's history: the state after one change, named by the change's number or by a time.

Old versions expire. Of a live memory all but the newest few go, of a deleted one all of them, so a state of long ago
may be gone. What is answered here is exact or refused:

- Between the point and now no change may be missing: it could be a deletion, and the memory would be forgotten.
- Each memory that was there must still have the version that was in force. Its next change tells that it was there.
  Of one memory the oldest versions expire first, so whatever is left of it up to the point ends with that version.

The state before the first change is empty whatever expired, and the state now needs no history at all.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.contract import clock
from app.contract.errors import InvalidRequest
from app.history import queries
from app.storage.rows.database import Row
from app.storage.rows.statements import Parameters, Statement
from app.stores.service import not_found as store_not_found

FetchAll = Callable[[Statement, Parameters], Awaitable[Sequence[Row]]]
"""`fetch_all` of a database or of a transaction."""

WHOLE_STORE: Mapping[str, Any] = {"after": "", "start": "/", "end": "0", "limit": 2**31 - 1}
"""The part of the state's parameters that leaves nothing out."""


@dataclass(frozen=True, slots=True)
class Point:
    """Either the number of a change, or a time in microseconds since 1970.

    The state at a time has every change that was made at that time or before.
    """

    seq: int | None = None
    at: int | None = None

    def __post_init__(self) -> None:
        if (self.seq is None) == (self.at is None):
            raise InvalidRequest("at, seq: exactly one of the two must be given, a time or the number of a change")


async def resolve(fetch_all: FetchAll, scope: Mapping[str, Any], point: Point) -> int:
    """The number of the last change that belongs to the point's state.

    Raises:
        NotFound: there is no such store.
        InvalidRequest: the point is in the future, or before the store was made.

    """
    if point.seq is not None:
        rows = await fetch_all(queries.STORE, scope)
        if not rows:
            raise store_not_found(scope["store_id"])
        if point.seq > rows[0]["last_seq"]:
            raise InvalidRequest(
                f"seq: is {point.seq}, but the newest change of the memory store is {rows[0]['last_seq']}"
            )
        return point.seq
    assert point.at is not None
    rows = await fetch_all(queries.AT_TIME, {**scope, "until": point.at})
    if not rows:
        raise store_not_found(scope["store_id"])
    store = rows[0]
    if point.at > (now := clock.now()):
        raise InvalidRequest(f"at: {clock.rfc3339(point.at)} has not come yet; it is {clock.rfc3339(now)}")
    if point.at < store["created_at"]:
        raise InvalidRequest(
            f"at: {clock.rfc3339(point.at)} is before the memory store was made, {clock.rfc3339(store['created_at'])}"
        )
    return store["seq"] or 0


async def state(
    fetch_all: FetchAll,
    scope: Mapping[str, Any],
    point: Point,
    seq: int,
    part: Mapping[str, Any] = WHOLE_STORE,
    *,
    with_content: bool = False,
) -> Sequence[Row]:
    """The versions that were in force after change `seq`, what `point` resolved to; the columns of a version.

    In byte order of the paths; redacted versions have none and come last. With content where it is in the stage.

    Raises:
        NotFound: there is no such store.
        InvalidRequest: history is not complete from there on.

    """
    statement = queries.STATE_WITH_CONTENT if with_content else queries.STATE
    rows = await fetch_all(statement, {**scope, **part, "seq": seq})
    if not rows:
        raise store_not_found(scope["store_id"])
    first = rows[0]
    is_complete = first["later_count"] == first["last_seq"] - seq and not first["lost_count"]
    if not is_complete and point.seq != 0:
        raise await expired(fetch_all, scope, seq, first["last_seq"])
    return [row for row in rows if row["id"] is not None]


async def expired(fetch_all: FetchAll, scope: Mapping[str, Any], seq: int, last_seq: int) -> InvalidRequest:
    """The refusal of a point whose state is gone; it says from when on history is complete."""
    (facts,) = await fetch_all(queries.COMPLETE_FROM, scope)
    last_gap = last_seq if (facts["newest"] or 0) < last_seq else facts["last_gap"] or 0
    complete_from = max(last_gap, facts["last_beginning"] or 0)
    times = await fetch_all(queries.TIME_OF, {**scope, "seq": complete_from})
    since = clock.rfc3339(times[0]["created_at"]) if times else "now"
    return InvalidRequest(
        f"the memory store as it was after change {seq} can no longer be told: versions of then have expired; "
        f"its history is complete from change {complete_from} on ({since})"
    )
