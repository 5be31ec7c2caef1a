"""Row 5: updates that go on for a while, and whether their content's way to the blob store keeps up."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from scripts.bench import s3
from scripts.bench.bench import Bench
from scripts.bench.contest import Outcome
from scripts.bench.dataset import Shape
from scripts.bench.load import Figure
from scripts.bench.product import Installation, Product, install, serve
from scripts.bench.report import Goal, Row, row_of_rates

SHAPE = Shape(stores=256, memories_per_store=4)
_STRETCH = 4
"""How many rounds' worth of time one sustained run takes."""
_RAMP_UP = 0.25
"""The share of it that does not count: the mover's backlog is still growing to its usual length."""
_KEEPS_UP = Goal(at_least=0.95)


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    moved: float
    staged: float
    oldest_age: float


@dataclass
class _Watch:
    """Reads the product's metrics once a second while the load runs."""

    product: Product
    samples: list[_Sample] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def rates(self) -> tuple[Figure, Figure]:
        """Contents moved and contents written per second, after the ramp-up."""
        first, last = self.samples[round(_RAMP_UP * len(self.samples))], self.samples[-1]
        seconds = last.at - first.at
        moved = last.moved - first.moved
        # Each content that was written is moved by now or waits.
        written = moved + last.staged - first.staged
        return Figure(moved / seconds), Figure(written / seconds)

    def ages(self) -> str:
        """The age of the oldest staged content, second by second."""
        return " ".join(f"{sample.oldest_age:.1f}" for sample in self.samples)

    def sample(self) -> None:
        """Read once."""
        metrics = self.product.metrics()
        self.samples.append(
            _Sample(
                time.monotonic(),
                metrics["memstore_blobs_moved_total"],
                metrics["memstore_staged_blobs"],
                metrics["memstore_staged_oldest_age_seconds"],
            )
        )

    def _run(self) -> None:
        self.sample()
        while not self._over.wait(1.0):
            self.sample()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()


def _measure(bench: Bench, name: str, installation: Installation) -> list[Row]:
    paths = bench.write_lines("sustained.paths", installation.memory_paths())
    with serve(installation, cpus=bench.cores.every) as product:
        target = product.target(paths, content_bytes=SHAPE.content_bytes)
        bench.wrk(target, cpus=bench.cores.every)
        product.drain()
        watch = _Watch(product)
        with watch():
            load = bench.wrk(target, cpus=bench.cores.every, seconds=_STRETCH * bench.options.seconds)
        rest = product.drain()
    moved, updates = watch.rates()
    oldest = max(sample.oldest_age for sample in watch.samples)
    staged = max(sample.staged for sample in watch.samples)
    what = (
        f"sustained updates, {name}, {load.value:,.0f}/s for {_STRETCH * bench.options.seconds:.0f} s: contents that "
        f"reach the blob store, contents written. At most {staged:,.0f} staged, the oldest for {oldest:.1f} s; "
        f"none {rest:.1f} s after the last update. Age by the second: {watch.ages()}"
    )
    return [row_of_rates(what, Outcome(moved, updates, [moved.value / updates.value]), _KEEPS_UP)]


def sqlite_disk(bench: Bench) -> list[Row]:
    """SQLite and local disk."""
    installation = install(bench.new_path("sustained-sqlite"), SHAPE, database=None)
    return _measure(bench, "SQLite + local disk", installation)


def postgres_disk(bench: Bench) -> list[Row]:
    """PostgreSQL and local disk."""
    database = bench.new_database("sustained")
    installation = install(bench.new_path("sustained-postgres"), SHAPE, database=database)
    return _measure(bench, "PostgreSQL + local disk", installation)


def postgres_s3(bench: Bench) -> list[Row]:
    """PostgreSQL and S3: Ceph's gateway where it is installed, moto's server elsewhere."""
    with s3.server(bench) as (label, settings):
        database = bench.new_database("sustained")
        installation = install(bench.new_path("sustained-s3"), SHAPE, database=database, settings=settings)
        return _measure(bench, f"PostgreSQL + S3 ({label})", installation)
