"""Pieces of UTF-8: a program may write a character in parts, and several programs may write one file at a time."""

_LONGEST = 3
"""Bytes of a character that is not finished."""


def unfinished(data: bytes | bytearray) -> int:
    """How many bytes at the end begin a character and do not finish it."""
    for back in range(1, min(_LONGEST, len(data)) + 1):
        byte = data[-back]
        if byte < 0x80:
            return 0
        if byte >= 0xC0:
            try:
                data[-back:].decode()
            except UnicodeDecodeError as error:
                return back if error.reason == "unexpected end of data" and error.end == back else 0
            return 0
    return 0


def can_be_text(data: bytes, *, begins_inside: bool) -> bool:
    """Whether a text can have these bytes somewhere, whatever is written after them.

    begins_inside: they may go on a character that began before them.
    """
    if data.isascii():
        return True
    start = 0
    while begins_inside and start < min(_LONGEST, len(data)) and data[start] & 0xC0 == 0x80:
        start += 1
    return _is_text(data[start : len(data) - unfinished(data)])


def fits(text: bytes | bytearray, start: int, end: int) -> bool:
    """Whether the bytes from start to end are whole characters together with what stands around them."""
    first, last = max(0, start - _LONGEST), min(len(text), end + _LONGEST)
    around = bytes(text[first:last])
    if around.isascii():
        return True
    skip = 0
    while first and skip < len(around) and skip < start - first and around[skip] & 0xC0 == 0x80:
        skip += 1
    cut = unfinished(around) if last < len(text) else 0
    return _is_text(around[skip : len(around) - cut])


def fault_of(data: bytes) -> str | None:
    """Why this is no text, in words; None if it is one."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"not UTF-8 at byte {error.start:,}: a memory holds text only"
    return None


def without_what_is_no_text(data: bytes) -> bytes:
    """The text without the bytes that are not UTF-8."""
    return data.decode(errors="ignore").encode()


def _is_text(data: bytes) -> bool:
    return fault_of(data) is None
