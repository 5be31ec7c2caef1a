"""The mount beside tmpfs and other FUSE file systems: 2,000 files of 4 KB in 20 directories, no network involved."""

from collections.abc import Callable
from functools import partial

from scripts.bench.bench import Bench
from scripts.bench.load import Figure
from scripts.bench.mounts import trees
from scripts.bench.mounts.arena import Arena, arena
from scripts.bench.mounts.contests import MFUSEPY, NO_GOAL, RCLONE, READ_ONLY, TMPFS, Contest, contest
from scripts.bench.mounts.program import Client
from scripts.bench.report import Goal, Row, row_not_measured

_BURST = 500
"""Scratch files that are there at once; each is removed long before it is taken for a lasting one."""


def _hold(bench: Bench, ground: Arena, use: Callable[[str], Figure], *, read_only: bool) -> Contest:
    sides = {name: partial(use, name) for name in ground.roots if read_only or name != READ_ONLY}
    return contest(sides, rounds=bench.options.rounds)


def _rows(what: str, held: Contest, ground: Arena, *, at_least: float, rclone: float | None = None) -> list[Row]:
    """Beside tmpfs, and beside the others where they are installed."""
    rows = [held.row(what, TMPFS, Goal(at_least=at_least))]
    if RCLONE in ground.roots:
        rows.append(held.row(what, RCLONE, NO_GOAL if rclone is None else Goal(at_least=rclone)))
    elif rclone is not None:
        rows.append(row_not_measured(f"{what}; {RCLONE}", ground.missing[RCLONE]))
    if MFUSEPY in ground.roots:
        rows.append(held.row(what, MFUSEPY))
    return rows


def _read_only_row(what: str, held: Contest, at_least: float) -> Row:
    return held.row(f"{what}, read-only store", TMPFS, Goal(at_least=at_least), product=READ_ONLY)


def reading(bench: Bench) -> list[Row]:
    """stat, `ls -lR`, read and `grep -r`. Everything is in the daemon's memory or the kernel's."""
    client = Client(bench)
    with arena(bench) as ground:
        names = bench.write_lines("names", trees.names())
        hold = partial(_hold, bench, ground)

        def listing(name: str, *, cold: bool) -> Figure:
            return client.command(["ls", "-lR", ground.roots[name]], files=trees.FILES, cold=cold)

        def searching(name: str) -> Figure:
            # What no file has: grep ends at the first match when nobody reads its output.
            return client.command(["grep", "-r", "no file has this", ground.roots[name]], files=trees.FILES)

        stats = hold(lambda name: client.stat(ground.roots[name], names), read_only=False)
        rows = _rows("mount, stat, warm", stats, ground, at_least=0.85)
        warm = hold(lambda name: listing(name, cold=False), read_only=False)
        rows += _rows("mount, `ls -lR`, files, warm", warm, ground, at_least=0.9)
        cold = hold(lambda name: listing(name, cold=True), read_only=False)
        rows += _rows("mount, `ls -lR`, files, cold kernel", cold, ground, at_least=0.6)
        what = "mount, open + read 4 KB + close, warm"
        reads = hold(lambda name: client.read(ground.roots[name], names), read_only=True)
        rows.append(_read_only_row(what, reads, 0.6))
        rows += _rows(what, reads, ground, at_least=0.06, rclone=5)
        what = "mount, `grep -r`, files, warm"
        searches = hold(searching, read_only=True)
        rows.append(_read_only_row(what, searches, 0.8))
        return rows + _rows(what, searches, ground, at_least=0.15)


def creating(bench: Bench) -> list[Row]:
    """Scratch names, which live in the mount alone: create, write 4 KB, close."""
    client = Client(bench)
    with arena(bench) as ground:

        def create(name: str) -> Figure:
            directory = ground.roots[name] / "area-0000"
            return client.create(directory, prefix=".bench-", suffix=".swp", burst=_BURST)

        held = _hold(bench, ground, create, read_only=False)
        what = "mount, create + write 4 KB + close, no network (a scratch name)"
        return _rows(what, held, ground, at_least=0.035, rclone=2.3)
