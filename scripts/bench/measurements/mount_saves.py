"""Saving through the mount: a new file of 4 KB, on the server before `close` returns."""

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from scripts.bench.bench import Bench
from scripts.bench.dataset import Shape
from scripts.bench.errors import MeasurementError
from scripts.bench.load import Figure
from scripts.bench.mounts import needs, servers
from scripts.bench.mounts.contests import Contest, at_least, at_most, contest, speed
from scripts.bench.mounts.host import Host, host
from scripts.bench.mounts.program import Client
from scripts.bench.product import Product, install, serve
from scripts.bench.report import Met, Row

_SHAPE = Shape(stores=1, memories_per_store=10)
_WRITERS = 8
_SAVES_PER_SECOND = 1_000
_DELAY_SECONDS = 0.030
_OWN_MS = 1.0
"""What the mount may add to the server's time."""
_STAT_P99_MS = 2.0
_PAUSE_US = 500
_WHAT = "mount, create + write 4 KB + close"
_PLAIN = "the same memories by Python's http.client"


def _saver(client: Client, mount: Path, *, sync: bool = False) -> Callable[[], Figure]:
    """One program that saves new files; they are removed after each round."""
    return partial(client.create, mount, prefix="save-", suffix=".md", burst=10**9, sync=sync)


def _savers(client: Client, mount: Path) -> Figure:
    """Several programs at once: their rates together, the median of their medians, the worst of their tails."""
    started = [client.start_create(mount, prefix=f"writer-{number}-", suffix=".md") for number in range(_WRITERS)]
    try:
        figures = [client.finish(process) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    return Figure(
        sum(figure.value for figure in figures),
        statistics.median(figure.p50_ms or 0 for figure in figures),
        max(figure.p99_ms or 0 for figure in figures),
        sum(figure.count for figure in figures),
    )


class _Ways:
    """The sides of both measurements: a mount of one store, a plain client for another."""

    def __init__(self, bench: Bench, stack: ExitStack, *, delay: float = 0.0) -> None:
        needs.need_fuse()
        self._client = Client(bench)
        self._product: Product = stack.enter_context(
            serve(install(bench.new_path("saves"), _SHAPE, database=None), cpus=bench.cores.every)
        )
        port = stack.enter_context(servers.slowly(bench, self._product, delay)) if delay else self._product.port
        self._host: Host = stack.enter_context(host(bench, self._product, port=port))
        with self._product.caller() as caller:
            self._plain_store = servers.new_store(caller, "Plain")
        self._port = port
        self.mount = self._host.mount()

    def settled(self, measure: Callable[[], Figure]) -> Callable[[], Figure]:
        """After a round, wait until all of it has arrived."""

        def round_of_it() -> Figure:
            figure = measure()
            self._host.flush()
            self._product.drain_staged()
            return figure

        return round_of_it

    def save(self, *, sync: bool = False) -> Callable[[], Figure]:
        """One program that saves new files."""
        return self.settled(_saver(self._client, self.mount, sync=sync))

    def save_together(self) -> Callable[[], Figure]:
        """Several that do."""
        return self.settled(lambda: _savers(self._client, self.mount))

    def plainly(self) -> Callable[[], Figure]:
        """One plain client that makes the same memories in another store."""
        key, seconds = self._product.installation.api_key, self._client.seconds
        return self.settled(lambda: servers.plain_creates(self._port, key, self._plain_store, seconds=seconds))

    def lookup(self) -> Figure:
        """Another program asks for names: each a question to the daemon."""
        return self._client.lookup(self.mount, pause_us=_PAUSE_US)

    def lookup_meanwhile(self) -> Figure:
        """The same while others save."""
        started = [
            self._client.start_create(self.mount, prefix=f"slow-{number}-", suffix=".md") for number in range(_WRITERS)
        ]
        try:
            figure = self.lookup()
            saved = sum(self._client.finish(process).count for process in started)
        finally:
            for process in started:
                process.kill()
                process.wait()
        if not saved:
            raise MeasurementError("nobody saved anything meanwhile")
        return figure


def _row_of_saves(what: str, held: Contest, side: str, *, goal: bool) -> Row:
    outcome = held.between(side, _PLAIN)
    return Row(
        f"{what}; {_PLAIN}",
        speed(outcome.product),
        speed(outcome.bound),
        f"{outcome.ratio:.2f} ({min(outcome.ratios):.2f} to {max(outcome.ratios):.2f})",
        f"≥ {_SAVES_PER_SECOND:,}/s" if goal else "",
        at_least(outcome.product.value, _SAVES_PER_SECOND) if goal else Met.NO_TARGET,
    )


def loopback(bench: Bench) -> list[Row]:
    """The server on loopback, SQLite."""
    with ExitStack() as stack:
        ways = _Ways(bench, stack)
        sides = {"one": ways.save(), "many": ways.save_together(), _PLAIN: ways.plainly()}
        held = contest(sides, rounds=bench.options.rounds)
    return [
        _row_of_saves(f"{_WHAT} over HTTP on loopback, 1 program", held, "one", goal=True),
        _row_of_saves(f"{_WHAT}, {_WRITERS} programs", held, "many", goal=False),
    ]


def _row_of_delay(what: str, held: Contest, side: str) -> Row:
    """How much longer than the plain request it takes, at the median of each pair of rounds."""
    outcome = held.between(side, _PLAIN)
    added = [
        (ours.p50_ms or 0) - (theirs.p50_ms or 0)
        for ours, theirs in zip(held.figures[side][1:], held.figures[_PLAIN][1:], strict=True)
    ]
    median = statistics.median(added)
    return Row(
        f"{what}; {_PLAIN}",
        f"p50 {outcome.product.p50_ms:.2f} ms, p99 {outcome.product.p99_ms:.2f} ms",
        f"p50 {outcome.bound.p50_ms:.2f} ms, p99 {outcome.bound.p99_ms:.2f} ms",
        f"{median:+.2f} ms ({min(added):+.2f} to {max(added):+.2f})",
        f"≤ +{_OWN_MS:g} ms",
        at_most(median, _OWN_MS),
    )


def slow_server(bench: Bench) -> list[Row]:
    """Behind a proxy that holds the server's answers back."""
    with ExitStack() as stack:
        ways = _Ways(bench, stack, delay=_DELAY_SECONDS)
        quiet, busy = "nobody saves", "others save"
        sides = {
            "close": ways.save(),
            "fsync": ways.save(sync=True),
            _PLAIN: ways.plainly(),
            quiet: ways.lookup,
            busy: ways.settled(ways.lookup_meanwhile),
        }
        held = contest(sides, rounds=bench.options.rounds)
    slow = f"a server that takes {_DELAY_SECONDS * 1e3:.0f} ms"
    asked = held.between(busy, quiet)
    tail = asked.product.p99_ms or 0
    return [
        _row_of_delay(f"{_WHAT}, {slow}", held, "close"),
        _row_of_delay(f"{_WHAT.replace('close', 'fsync + close')}, {slow}", held, "fsync"),
        Row(
            f"mount, stat of unknown names while {_WRITERS} programs save, {slow}; while {quiet}",
            f"p50 {asked.product.p50_ms:.3f} ms, p99 {tail:.3f} ms",
            f"p50 {asked.bound.p50_ms:.3f} ms, p99 {asked.bound.p99_ms:.3f} ms",
            "",
            f"p99 ≤ {_STAT_P99_MS:g} ms",
            at_most(tail, _STAT_P99_MS),
        ),
    ]
