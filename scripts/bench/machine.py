"""Where the benchmark runs: the cores it may use, the tools it needs, and one line that describes it all."""

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from scripts.bench.errors import MeasurementError

Cpus = frozenset[int]


@dataclass(frozen=True, slots=True)
class Cores:
    """How the cores are shared out. With one core, or without affinity calls, all share all."""

    every: Cpus
    server: Cpus
    """The one core of the measured server process."""
    rest: Cpus
    """The load generator and the database."""

    @classmethod
    def of_this_machine(cls) -> "Cores":
        """One core for the server, the others for the rest."""
        if not hasattr(os, "sched_getaffinity"):
            return cls(frozenset(), frozenset(), frozenset())
        every = frozenset(os.sched_getaffinity(0))
        if len(every) == 1:
            return cls(every, every, every)
        server = frozenset({min(every)})
        return cls(every, server, every - server)


def on_cores(command: Sequence[str], cpus: Cpus) -> list[str]:
    """The command, bound to these cores where the machine can do that."""
    if not cpus or shutil.which("taskset") is None:
        return list(command)
    return ["taskset", "--cpu-list", ",".join(str(cpu) for cpu in sorted(cpus)), *command]


def need_wrk() -> None:
    """Stop before anything is started when the load generator is missing.

    Raises:
        MeasurementError: it is not installed.
    """
    if shutil.which("wrk") is None:
        raise MeasurementError("wrk, the load generator, is not installed; run: apt-get install wrk")


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def _file_system(directory: Path) -> str:
    found = subprocess.run(["df", "--output=fstype", str(directory)], capture_output=True, text=True, check=False)
    return found.stdout.split()[-1] if found.returncode == 0 else "unknown file system"


def describe(directory: Path, cores: Cores) -> str:
    """One sentence: processor, operating system, file system of `directory`, versions that matter."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("uvicorn", "starlette", "fastapi", "asyncpg"))
    system = f"{platform.system()} {platform.release()}, {_file_system(directory)}"
    python = f"Python {platform.python_version()}"
    return f"{len(cores.every) or os.cpu_count()} cores of {_cpu_model()}, {system}, {python}, {libraries}"
