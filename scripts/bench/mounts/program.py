"""The client that uses a directory and times it: client.c where a compiler is, else client.py."""

import itertools
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.bench.bench import Bench
from scripts.bench.errors import MeasurementError
from scripts.bench.load import Figure
from scripts.bench.processes import run

_HERE = Path(__file__).parent
_GRACE_SECONDS = 120.0
_prefixes = (f"change-{number}" for number in itertools.count())
"""No two runs write the same text."""


def percentile(values: Iterable[float], percent: int) -> float:
    """The value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


@dataclass(frozen=True, slots=True)
class Timing:
    """What the client printed."""

    count: int
    seconds: float
    """Spent in what is timed."""
    nanoseconds: list[int]
    """Of single operations, where they were timed one by one."""

    @classmethod
    def read(cls, printed: str) -> "Timing":
        """From the client's line.

        Raises:
            MeasurementError: nothing was done in the time there was.
        """
        timing = cls(**json.loads(printed))
        if not timing.count:
            raise MeasurementError("not one operation was done in the time there was")
        return timing

    @property
    def figure(self) -> Figure:
        """Operations per second, with percentiles where there are some."""
        milliseconds = [value / 1e6 for value in self.nanoseconds]
        if not milliseconds:
            return Figure(self.count / self.seconds, count=self.count)
        p50, p99 = statistics.median(milliseconds), percentile(milliseconds, 99)
        return Figure(self.count / self.seconds, p50, p99, self.count)


@dataclass(frozen=True, slots=True)
class Change:
    """One change that went from one file to another: its text, and three moments by the monotonic clock, in ns."""

    text: bytes
    begun: int
    closed: int
    seen: int


class Client:
    """Runs the client. Every method is one stretch of use."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._command = _compiled(bench.new_path("client"))

    @property
    def seconds(self) -> float:
        """How long a stretch is: shorter than one of HTTP load, because a row has up to five sides."""
        return max(0.5, self._bench.options.seconds / 4)

    def stat(self, directory: Path, paths: Path) -> Figure:
        """Stat the files of a directory that the lines of `paths` name, round and round."""
        return self._run("stat", directory, paths, self.seconds).figure

    def read(self, directory: Path, paths: Path) -> Figure:
        """Open, read and close them."""
        return self._run("read", directory, paths, self.seconds).figure

    def lookup(self, directory: Path, *, pause_us: int) -> Figure:
        """Stat names that were never asked for: the kernel can't answer from its cache."""
        return self._run("lookup", directory, self.seconds, pause_us).figure

    def create(self, directory: Path, *, prefix: str, suffix: str, burst: int, sync: bool = False) -> Figure:
        """Create, write 4 KB and close; the files are removed, untimed, after each burst and at the end."""
        return self._run("create", directory, prefix, suffix, burst, self.seconds, int(sync)).figure

    def start_create(self, directory: Path, *, prefix: str, suffix: str) -> "subprocess.Popen[str]":
        """The same in the background; the files are removed at the end. `finish` takes its figure."""
        arguments = ["create", str(directory), prefix, suffix, str(10**9), str(self.seconds), "0"]
        return subprocess.Popen(
            [*self._command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @staticmethod
    def finish(process: "subprocess.Popen[str]") -> Figure:
        """Wait for what was started.

        Raises:
            MeasurementError: it failed.
        """
        try:
            printed, complaint = process.communicate(timeout=_GRACE_SECONDS)
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            raise MeasurementError(f"the client ended with status {process.returncode}: {complaint}")
        return Timing.read(printed).figure

    def command(self, program: Sequence[str | Path], *, files: int, cold: bool = False) -> Figure:
        """Run a program again and again; files per second, by the median run.

        cold: have the kernel forget names and attributes before each run.
        """
        timing = self._run("command", self.seconds, int(cold), *program)
        return Figure(files / (statistics.median(timing.nanoseconds) / 1e9), count=timing.count)

    def change(self, source: Path, target: Path, *, samples: int, pause_us: int) -> list[Change]:
        """Write to one file, read another until the text is there; again and again."""
        prefix = next(_prefixes)
        moments = self._run("change", source, target, prefix, samples, pause_us).nanoseconds
        triples = zip(moments[::3], moments[1::3], moments[2::3], strict=True)
        return [Change(f"{prefix} {number:06d}\n".encode(), *triple) for number, triple in enumerate(triples)]

    def _run(self, *arguments: object) -> Timing:
        command = [*self._command, *map(str, arguments)]
        return Timing.read(run(command, seconds=self.seconds + _GRACE_SECONDS, environment={"LC_ALL": "C"}))


def _compiled(program: Path) -> list[str]:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return [sys.executable, str(_HERE / "client.py")]
    run([compiler, "-O2", "-o", str(program), str(_HERE / "client.c")], seconds=60)
    return [str(program)]
