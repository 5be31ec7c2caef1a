"""Times as a person types them."""

import re
from datetime import datetime

from app.contract import clock
from app.contract.errors import InvalidRequest

_AGO = re.compile(r"-?(\d{1,6})\s*([smhdw])(\s+ago)?")
_RFC3339_LENGTH = len("2026-11-20T12:00:00.000000Z")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def parse(text: str, option: str = "--at") -> int:
    """Microseconds since 1970: RFC 3339, taken as UTC if it names no zone, or so long ago: `15m`, `-2h`, `3d ago`.

    Raises:
        InvalidRequest: it is neither.

    """
    ago = _AGO.fullmatch(text.strip())
    if ago:
        return clock.now() - int(ago[1]) * _SECONDS[ago[2]] * clock.MICROSECONDS_PER_SECOND
    try:
        return clock.microseconds(datetime.fromisoformat(text.strip()))
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"{option}: is {text!r}; give a time such as 2026-11-20T12:00:00Z (UTC if it names no zone), or how long "
            "ago, such as 15m, 2h or 3d"
        ) from None


def short(rfc3339: str) -> str:
    """A time of the wire for a column, to the minute: `2026-11-20 12:00Z`. What is none is shown as it is."""
    return f"{rfc3339[:10]} {rfc3339[11:16]}Z" if len(rfc3339) == _RFC3339_LENGTH else rfc3339 or "-"
