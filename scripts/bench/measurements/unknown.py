"""What programs without a key cost those that have one."""

import contextlib
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from scripts.bench.bench import Bench
from scripts.bench.contest import Side
from scripts.bench.dataset import Shape
from scripts.bench.errors import MeasurementError
from scripts.bench.load import Figure
from scripts.bench.product import Product, install, serve
from scripts.bench.report import Goal, Row
from scripts.bench.strangers import CONNECTIONS, HEADS_PER_SECOND

_SHAPE = Shape(stores=16, memories_per_store=16)
_GOAL = Goal(at_most=3)
_REPOSITORY = Path(__file__).parents[3]


@contextlib.contextmanager
def _strangers(product: Product, kind: str) -> Iterator[None]:
    command = [sys.executable, "-m", "scripts.bench.strangers", str(product.port), kind]
    with subprocess.Popen(command, cwd=_REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            if process.stdout.readline().strip() != b"open":
                raise MeasurementError("the strangers could not connect")
            yield
        finally:
            process.terminate()


def _tail(product: Product, paths: Iterator[str], seconds: float) -> Figure:
    """The 99th percentile of a client's GETs one after the other, in seconds."""
    taken: list[float] = []
    with product.caller() as caller:
        until = time.perf_counter() + seconds
        while (began := time.perf_counter()) < until:
            caller.get(next(paths))
            taken.append(time.perf_counter() - began)
    taken.sort()
    return Figure(taken[len(taken) * 99 // 100], taken[len(taken) // 2] * 1e3, count=len(taken))


def strangers(bench: Bench) -> list[Row]:
    """The p99 of a client with a key while strangers send half and large heads, over that while they are silent."""
    made = install(bench.new_path("strangers"), _SHAPE, database=None)
    with serve(made, cpus=bench.cores.every) as product:
        paths = itertools.cycle(made.memory_paths())

        def side(kind: str) -> Side:
            def measure() -> Figure:
                with _strangers(product, kind):
                    return _tail(product, paths, bench.options.seconds)

            return Side(measure)

        outcome = bench.compete(side("loud"), side("silent"))
    loud, silent = (f"p99 {figure.value * 1e3:.2f} ms" for figure in (outcome.product, outcome.bound))
    what = (
        f"GET 1 KB, 1 client with a key, while strangers hold {CONNECTIONS} connections at half a head and send heads "
        f"of 64 MB, {HEADS_PER_SECOND} a second; the same connections silent"
    )
    ratios = f"{outcome.ratio:.2f} ({min(outcome.ratios):.2f} to {max(outcome.ratios):.2f})"
    return [Row(what, loud, silent, ratios, str(_GOAL), _GOAL.judge(outcome.ratio))]
