"""What a route may return instead of a bare body."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class Reply(NamedTuple):
    """What a route may return instead of a bare body: the body and response headers of its own."""

    body: Any
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Stream:
    """What a route may return to have its body sent piece by piece, as it is made.

    The status is 200 by then, so what can be refused is refused before. `pieces` is closed when the answer ends,
    however it ends. A stream with a `farewell` goes on until the client leaves or the process ends; the farewell is
    sent last should the caller lose the right to the route meanwhile.
    """

    pieces: AsyncGenerator[bytes, None]
    media_type: str
    farewell: bytes | None = None
