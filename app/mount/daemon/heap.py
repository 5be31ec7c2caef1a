"""Giving freed memory back to the host."""

import ctypes

_M_MMAP_THRESHOLD = -3
_BYTES = 128 * 1024
"""Larger than any content. What is larger than this is an answer of a server, and is used for a moment."""


def give_back_what_is_freed() -> None:
    """Have large blocks mapped one by one, so that each goes back when it is freed.

    The GNU C library raises its threshold with the blocks that are freed, and from then on keeps them in a heap with
    holes: a server that sends lines of a megabyte made a mount grow by 31 to 80 MB, by luck. Other libraries have no
    such setting, and nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _BYTES)
