"""Keeping what the daemon remembers from other processes of its user.

An agent may run as the same user as the daemon that serves it. Linux lets it read the memory and the first
environment of such a process through /proc, unless the process forbids it. (From inside a user namespace of its own,
which `memstore run` gives it, it can't in any case.) Only the standard library: the supervisor starts here.
"""

import ctypes
import os
from collections.abc import Sequence

from app.mount.daemon import supervisor

_PR_SET_DUMPABLE = 4
_libc = ctypes.CDLL(None, use_errno=True)


def hide_this_process() -> None:
    """Let nobody but the administrator of the host look into this process. Its programs start without that."""
    if _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl: {os.strerror(number)}")


def supervise(arguments: Sequence[str]) -> int:
    """`supervisor.main` in a hidden process: it remembers what its workers know."""
    hide_this_process()
    return supervisor.main(arguments)
