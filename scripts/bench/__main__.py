"""Measure, print the table, and write it into docs/performance.md."""

import argparse
import contextlib
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from scripts.bench.bench import Bench, Options
from scripts.bench.errors import MeasurementError
from scripts.bench.machine import describe, need_wrk
from scripts.bench.measurements import MEASUREMENTS
from scripts.bench.report import Met, Row, markdown, row_not_measured, write_into_document


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 rounds of 2 s: shows that it works, not how fast it is")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=sorted(MEASUREMENTS), help="some measurements")
    parser.add_argument("--rounds", type=int, help="rounds of product and bound each (default 5)")
    parser.add_argument("--seconds", type=float, help="length of one round (default 6)")
    parser.add_argument(
        "--directory", type=Path, help="where databases and blobs go (default: the temporary directory)"
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is not met")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    options = parser.parse_args(arguments)
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds: at least 1")
    if options.seconds is not None and options.seconds < 1:
        parser.error("--seconds: at least 1, the shortest that the load generators can do")
    return options


def _measure(bench: Bench, names: Sequence[str]) -> list[Row]:
    rows: list[Row] = []
    for name in names:
        began = time.monotonic()
        try:
            measured = MEASUREMENTS[name](bench)
        except MeasurementError as error:
            print(f"{name}: {error}", file=sys.stderr)
            measured = [row_not_measured(name, str(error))]
        except Exception as error:
            # The other measurements must not be lost to one that broke.
            traceback.print_exc()
            measured = [row_not_measured(name, f"{type(error).__name__}: {error}")]
        for row in measured:
            print(f"{row.what}: {row.product} / {row.bound} = {row.ratio} {row.met.value}", file=sys.stderr)
        print(f"  ({name} took {time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
        rows += measured
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked; 1 when something could not be measured (or, with `--check`, missed its target)."""
    asked = _parse(arguments)
    if asked.list:
        print("\n".join(MEASUREMENTS))
        return 0
    try:
        need_wrk()
    except MeasurementError as error:
        print(error, file=sys.stderr)
        return 1
    options = Options(asked.rounds or (2 if asked.quick else 5), asked.seconds or (2 if asked.quick else 6))
    # Stopped from outside, everything that was started is also stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    directory = Path(tempfile.mkdtemp(prefix="memstore-bench-", dir=asked.directory))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        bench = Bench(options, directory, stack)
        rows = _measure(bench, asked.only or list(MEASUREMENTS))
        heading = (
            f"{datetime.now(UTC):%Y-%m-%d}: {describe(directory, bench.cores)}; medians of {options.rounds} "
            f"interleaved rounds of {options.seconds:g} s."
        )
    table = markdown(rows, heading)
    print(table)
    if asked.quick or asked.only:
        print("(docs/performance.md takes full runs only)", file=sys.stderr)
    else:
        write_into_document(table)
    verdicts = {row.met for row in rows}
    return 1 if Met.NOT_MEASURED in verdicts or (asked.check and Met.NO in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
