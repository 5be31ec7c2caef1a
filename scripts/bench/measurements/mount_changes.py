"""How soon a change made in one mount is read in another, and how soon the official SDK's sync worker brings one."""

import statistics
import sys
from contextlib import ExitStack

from scripts.bench import dataset
from scripts.bench.bench import Bench
from scripts.bench.errors import MeasurementError
from scripts.bench.mounts import needs, sync_worker, trees
from scripts.bench.mounts.contests import at_most
from scripts.bench.mounts.events import events
from scripts.bench.mounts.host import host
from scripts.bench.mounts.program import Client, percentile
from scripts.bench.product import install, serve
from scripts.bench.report import Met, Row

_SAMPLES_A_ROUND = 50
_PAUSE_US = 20_000
_P99_MS = 100.0
_AFTER_EVENT_P99_MS = 5.0
_WORKER = f"the official SDK's sync worker, every {sync_worker.INTERVAL_SECONDS:.0f} s"


def _percentiles(milliseconds: list[float]) -> str:
    values = (statistics.median(milliseconds), percentile(milliseconds, 95), percentile(milliseconds, 99))
    return "p50 {:.1f} ms, p95 {:.1f} ms, p99 {:.1f} ms".format(*values)


def change(bench: Bench) -> list[Row]:
    """Two daemons show one store; a file is written in one of them, and read in the other until the text is there."""
    needs.need_fuse()
    client = Client(bench)
    rounds = bench.options.rounds
    installation = install(bench.new_path("change"), trees.SHAPE, database=None)
    with ExitStack() as stack:
        product = stack.enter_context(serve(installation, cpus=bench.cores.every))
        name = trees.names()[0]
        source, target = (stack.enter_context(host(bench, product)).mount() / name for _ in range(2))
        feed = stack.enter_context(events(product, dataset.store_id(0)))
        client.change(source, target, samples=_SAMPLES_A_ROUND, pause_us=_PAUSE_US)
        taken = [client.change(source, target, samples=_SAMPLES_A_ROUND, pause_us=_PAUSE_US) for _ in range(rounds)]
        samples = [sample for of_round in taken for sample in of_round]
        whole = [(sample.seen - sample.begun) / 1e6 for sample in samples]
        since_close = [(sample.seen - sample.closed) / 1e6 for sample in samples]
        arrivals = [feed.arrival(sample.text) for sample in samples]
        if missing := arrivals.count(None):
            raise MeasurementError(f"the feed did not bring {missing} of {len(samples)} changes")
        after = [
            (sample.seen - arrived) / 1e6
            for sample, arrived in zip(samples, arrivals, strict=True)
            if arrived is not None
        ]
        print(f"the sync worker takes {rounds} changes, up to half a minute each", file=sys.stderr)
        workers = sync_worker.latencies(bench, product, samples=rounds)
    worker = statistics.median(workers)
    p99, after_p99 = percentile(whole, 99), percentile(after, 99)
    return [
        Row(
            f"a change on another mount, from open(2) for writing to the text read there; {_WORKER}",
            _percentiles(whole),
            f"p50 {worker:.1f} s ({min(workers):.1f} to {max(workers):.1f})",
            f"{worker * 1e3 / statistics.median(whole):,.0f} times sooner",
            f"p99 < {_P99_MS:.0f} ms",
            Met.YES if p99 < _P99_MS else Met.NO,
        ),
        Row(
            "a change on another mount, since close(2) returned in the first",
            _percentiles(since_close), "", "", "", Met.NO_TARGET,
        ),
        Row(
            "a change on another mount, since a plain client of the feed had the event",
            _percentiles(after), "", "", f"p99 ≤ {_AFTER_EVENT_P99_MS:.0f} ms", at_most(after_p99, _AFTER_EVENT_P99_MS),
        ),
    ]  # fmt: skip
