"""What the server refused a moment ago and would refuse again: told at the call that begins an edit.

A program that is told at `open` has lost nothing yet; at `close` many no longer look.
"""

import errno
import os
import time
from collections.abc import Callable

from app.mount.sync.errors import Refused

FRESH_SECONDS = 5.0
"""How long a refusal counts: somebody may make room, or give a right back, without our hearing of it."""


class KnownRefusals:
    """The last refusal of one store that is not about one text alone: no room, or no right."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._errno = 0
        self._until = 0.0

    def note(self, refusal: Refused) -> None:
        """The server, or the engine, refused a save."""
        if refusal.errno in (errno.EDQUOT, errno.EACCES):
            self._errno, self._until = refusal.errno, self._clock() + FRESH_SECONDS

    def forget(self) -> None:
        """Something was saved, or room was made."""
        self._errno = 0

    def check(self, *, is_new: bool) -> None:
        """Raise the OSError that a save would end with now.

        is_new: for a new memory; a full store still takes other texts for those it has.
        """
        number = self._errno
        if number and self._clock() < self._until and (is_new or number != errno.EDQUOT):
            raise OSError(number, os.strerror(number))
