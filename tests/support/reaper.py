"""Ends the servers of a test run that could not end them itself.

`processes.py` runs this file as a program of its own, one per test process, and tells it on standard input
what there is to clean up, one line each: `group <id>` and `directory <path>`, or the same with `forget ` in
front once it is gone. A run that ends as it should has forgotten everything. When the input ends before
that, the test process is dead (even by SIGKILL, which no clean-up code survives): the reaper then kills those
process groups and removes those directories.

Only the standard library is used, because it starts with `python -I -S` to be small and quick.
"""

import contextlib
import os
import shutil
import signal
import sys
from typing import BinaryIO


def left_over(lines: BinaryIO) -> list[tuple[str, str]]:
    """Read until the input ends; what was announced and not forgotten, in the order announced."""
    kept: dict[tuple[str, str], None] = {}
    for line in lines:
        kind, _, value = os.fsdecode(line).rstrip("\n").partition(" ")
        if kind == "forget":
            kind, _, value = value.partition(" ")
            kept.pop((kind, value), None)
        else:
            kept[kind, value] = None
    return list(kept)


def main() -> None:
    """Wait for the end of the test process, then clean up behind it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    remains = left_over(sys.stdin.buffer)
    for kind, value in remains:
        if kind == "group":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(value), signal.SIGKILL)
    for kind, value in remains:
        if kind == "directory":
            shutil.rmtree(value, ignore_errors=True)


if __name__ == "__main__":
    main()
