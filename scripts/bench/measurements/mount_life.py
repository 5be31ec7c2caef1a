"""What a mount costs before anybody uses it: until it is ready, and while it is idle."""

import itertools
import os
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from scripts.bench import dataset
from scripts.bench.bench import Bench
from scripts.bench.dataset import Shape
from scripts.bench.errors import MeasurementError
from scripts.bench.load import Figure
from scripts.bench.mounts import needs, trees
from scripts.bench.mounts.contests import at_most, contest
from scripts.bench.mounts.host import Host, host
from scripts.bench.product import Product, install, serve
from scripts.bench.report import Met, Row, seconds

_READY_SECONDS = 0.150
"""Beyond one request for the snapshot."""
_MOUNTS = 100
_IDLE_SHAPE = Shape(stores=_MOUNTS, memories_per_store=20)
_IDLE_SECONDS = 20.0
"""Two heartbeats of the feed."""


def _timed(call: Callable[[], object]) -> Figure:
    began = time.perf_counter()
    call()
    return Figure(time.perf_counter() - began)


def _fetch_snapshot(product: Product) -> None:
    """What any client pays for a snapshot, its connection included."""
    with product.caller() as caller:
        lines = caller.get(f"/v1/memory_stores/{dataset.store_id(0)}/snapshot?view=full").count(b"\n")
    if lines < trees.FILES:
        raise MeasurementError(f"the snapshot had {lines} lines")


class _Starts:
    """Mounts of the store, each in a new place, so that nothing is known from the one before."""

    def __init__(self, bench: Bench, host: Host) -> None:
        self._bench = bench
        self._host = host
        self._numbers = itertools.count()

    def ask(self) -> Figure:
        """Ask the daemon that runs already, and look into one directory."""
        root = f"root-{next(self._numbers)}"
        cache = self._bench.new_path("cache")

        def ready() -> None:
            at = self._host.ask_for_mount(dataset.store_id(0), root=root, cache=cache)
            if len(os.listdir(at)) != trees.SHAPE.directories:
                raise MeasurementError(f"{at} is mounted, but does not show the store's directories")

        figure = _timed(ready)
        self._host.unmount(root)
        return figure

    def command(self) -> Figure:
        """`memstore mount`, from its start to its end; a daemon runs already."""
        root = f"root-{next(self._numbers)}"
        figure = _timed(lambda: self._host.mount(root=root))
        self._host.unmount(root)
        return figure


def ready(bench: Bench) -> list[Row]:
    """From the request for a mount of 2,000 memories until its directory answers."""
    needs.need_fuse()
    installation = install(bench.new_path("ready"), trees.SHAPE, database=None)
    with ExitStack() as stack:
        product = stack.enter_context(serve(installation, cpus=bench.cores.every))
        ours = stack.enter_context(host(bench, product))
        stack.enter_context(ours.connected())
        starts = _Starts(bench, ours)
        snapshot = "one snapshot request with contents"
        held = contest(
            {"ask": starts.ask, "command": starts.command, snapshot: lambda: _timed(lambda: _fetch_snapshot(product))},
            rounds=bench.options.rounds,
        )
    rows = []
    for what, side in (("the daemon runs", "ask"), ("with the start of the command `memstore mount`", "command")):
        outcome = held.between(side, snapshot)
        pairs = zip(held.figures[side][1:], held.figures[snapshot][1:], strict=True)
        more = [ours.value - theirs.value for ours, theirs in pairs]
        judged = side == "ask"
        rows.append(
            Row(
                f"mount of {trees.FILES:,} memories ready, {what}; {snapshot}",
                seconds(outcome.product),
                seconds(outcome.bound),
                f"{_ms(statistics.median(more))} more ({_ms(min(more))} to {_ms(max(more))})",
                f"≤ {_READY_SECONDS * 1e3:.0f} ms more" if judged else "",
                at_most(statistics.median(more), _READY_SECONDS) if judged else Met.NO_TARGET,
            )
        )
    return rows


def _ms(value: float) -> str:
    return f"{value * 1e3:.0f} ms"


def _own(pids: list[int]) -> float:
    """MiB that processes hold in memory and share with nobody else (USS), together."""
    kib = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Private_Clean:", "Private_Dirty:")):
                kib += int(line.split()[1])
    return kib / 1024


def _resident(pids: list[int]) -> float:
    """MiB of their resident sets, what they share counted for each."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _processor(pids: list[int]) -> float:
    """Seconds that the threads of processes have run so far."""
    nanoseconds = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            nanoseconds += int((thread / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def _idle_shares(pids: list[list[int]]) -> list[float]:
    """For each of these, milliseconds of processor time in a second in which nothing is asked."""
    before, began = [_processor(of) for of in pids], time.perf_counter()
    time.sleep(_IDLE_SECONDS)
    after, took = [_processor(of) for of in pids], time.perf_counter() - began
    return [(later - earlier) / took * 1e3 for earlier, later in zip(before, after, strict=True)]


def idle(bench: Bench) -> list[Row]:
    """Memory and processor time of a daemon that nobody asks anything: with one mount, and with a hundred."""
    needs.need_fuse()
    installation = install(bench.new_path("idle"), _IDLE_SHAPE, database=None)
    with ExitStack() as stack:
        product = stack.enter_context(serve(installation, cpus=bench.cores.every))
        one, many = stack.enter_context(host(bench, product)), stack.enter_context(host(bench, product))
        one.mount()
        for number in range(_MOUNTS):
            many.ask_for_mount(dataset.store_id(number), root="mnt")
        shown = many.status()["stores"]
        connected = sum(store["connected"] for store in shown)
        if connected != _MOUNTS:
            raise MeasurementError(f"of {_MOUNTS} mounts {len(shown)} are there, and {connected} are connected")
        pids = [many.processes(), one.processes()]
        many_share, one_share = _idle_shares(pids)
        many_resident, one_resident = map(_resident, pids)
        many_own, one_own = map(_own, pids)
    what = f"idle daemon with its supervisor, {_MOUNTS} mounts of {_IDLE_SHAPE.memories_per_store} memories"
    return [
        Row(
            f"mount, {what}, resident memory; 1 mount",
            f"{many_resident:.0f} MiB ({many_own:.0f} shared with nobody)",
            f"{one_resident:.0f} MiB ({one_own:.0f} shared with nobody)",
            f"{(many_own - one_own) / (_MOUNTS - 1):.2f} MiB a mount",
            "",
            Met.NO_TARGET,
        ),
        Row(
            f"mount, {what}, processor time; 1 mount",
            f"{many_share:.2f} ms/s",
            f"{one_share:.2f} ms/s",
            f"{(many_share - one_share) / (_MOUNTS - 1):.3f} ms/s a mount",
            "",
            Met.NO_TARGET,
        ),
    ]
