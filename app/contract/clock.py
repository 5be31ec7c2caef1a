"""Time as the database keeps it: whole microseconds since 1970-01-01 UTC; as the wire shows it: RFC 3339, `Z`."""

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECONDS_PER_SECOND = 1_000_000
MICROSECONDS_PER_DAY = 86_400 * MICROSECONDS_PER_SECOND


def now() -> int:
    """Microseconds since the epoch, UTC."""
    return time.time_ns() // 1_000


@lru_cache(maxsize=4096)
def _whole_second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339(microseconds: int) -> str:
    """`2026-11-20T00:00:00.000000Z`: always six fractional digits, so that texts sort as times."""
    seconds, fraction = divmod(microseconds, MICROSECONDS_PER_SECOND)
    return f"{_whole_second(seconds)}.{fraction:06d}Z"


def rfc3339_or_none(microseconds: int | None) -> str | None:
    """The same, where the time may not have come."""
    return None if microseconds is None else rfc3339(microseconds)


def microseconds(moment: datetime) -> int:
    """Microseconds since the epoch; a time without a zone is taken as UTC."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1)


def microseconds_or_none(moment: datetime | None) -> int | None:
    """The same, where no time may be given."""
    return None if moment is None else microseconds(moment)


def micros(moment: str) -> int:
    """Microseconds since 1970 of an RFC 3339 time that was checked."""
    return microseconds(datetime.fromisoformat(moment))


def micros_or_none(moment: str | None) -> int | None:
    """Microseconds since 1970 of an RFC 3339 time that was checked, where the time may not have come."""
    return None if moment is None else micros(moment)
