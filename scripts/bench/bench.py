"""What every measurement shares: the options, the cores, a scratch directory, and one PostgreSQL cluster."""

import contextlib
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from scripts.bench import postgres
from scripts.bench.contest import Outcome, Side, compete
from scripts.bench.load import Figure, Target, wrk
from scripts.bench.machine import Cores, Cpus
from scripts.bench.processes import free_port, running, wait_until_ready

_REPOSITORY = Path(__file__).parents[2]

CLIENTS = 32
"""Connections that load a server at once, unless a measurement says otherwise."""


@dataclass(frozen=True, slots=True)
class Options:
    """How long and how often to measure."""

    rounds: int
    seconds: float


@dataclass
class Bench:
    """Handed to every measurement."""

    options: Options
    directory: Path
    stack: ExitStack
    cores: Cores = field(default_factory=Cores.of_this_machine)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @cached_property
    def cluster(self) -> postgres.Cluster:
        """The PostgreSQL server; started when it is first needed, stopped with `stack`."""
        return self.stack.enter_context(postgres.cluster(self.directory / "postgres"))

    def new_path(self, name: str) -> Path:
        """A path in the scratch directory that nothing else uses."""
        return self.directory / f"{next(self._numbers):02d}-{name}"

    def new_database(self, name: str, template: postgres.Database | None = None) -> postgres.Database:
        """A PostgreSQL database that nothing else uses."""
        return self.cluster.create(f"{name}_{next(self._numbers)}", template)

    def write_lines(self, name: str, lines: Iterable[str]) -> Path:
        """A file for a load generator."""
        file = self.new_path(name)
        file.write_text("".join(f"{line}\n" for line in lines))
        return file

    def write_plan(self, name: str, plan: Mapping[str, Any]) -> Path:
        """A file for a bound."""
        file = self.new_path(name)
        file.write_text(json.dumps(plan))
        return file

    def compete(self, product: Side, bound: Side) -> Outcome:
        """Rounds in turns."""
        return compete(product, bound, rounds=self.options.rounds)

    def wrk(self, target: Target, *, cpus: Cpus, clients: int = CLIENTS, seconds: float | None = None) -> Figure:
        """One round of HTTP load."""
        return wrk(target, clients=clients, seconds=seconds or self.options.seconds, cpus=cpus)

    @contextmanager
    def bound_server(self, module: str, plan: Path) -> Iterator[int]:
        """Serve a module of `bounds` by uvicorn with uvloop and httptools, as the product is; its port."""
        port = free_port()
        log = self.new_path(f"{module}.log")
        command = [
            *(sys.executable, "-m", "uvicorn", f"scripts.bench.bounds.{module}:app", "--port", str(port)),
            *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"),
        ]
        environment = {"BENCH_ANSWERS": str(plan)}
        with running(
            command, directory=_REPOSITORY, log=log, environment=environment, cpus=self.cores.server
        ) as process:
            url = next(iter(json.loads(plan.read_text())["answers"]))
            wait_until_ready(port, url, process, log)
            yield port

    @contextmanager
    def postgres_on(self, cpus: Cpus) -> Iterator[None]:
        """PostgreSQL on these cores for the length of the block."""
        self.cluster.pin(cpus)
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                self.cluster.pin(self.cores.every)
