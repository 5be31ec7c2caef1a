"""Times in files, RFC 3339, and in the database, microseconds since 1970."""

from datetime import datetime

from app.contract import clock


def micros(moment: str) -> int:
    """Microseconds since 1970 of an RFC 3339 time that was checked."""
    return clock.microseconds(datetime.fromisoformat(moment))


def micros_or_none(moment: str | None) -> int | None:
    """The same, where the time may not have come."""
    return None if moment is None else micros(moment)
