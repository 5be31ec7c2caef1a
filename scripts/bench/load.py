"""The load generators: wrk for HTTP, pgbench for SQL. One call is one bounded stretch of load."""

import itertools
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.bench.errors import MeasurementError
from scripts.bench.machine import Cpus
from scripts.bench.postgres import BIN, Database
from scripts.bench.processes import run

_LUA = Path(__file__).with_name("wrk.lua")
_GRACE_SECONDS = 60
_round_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value: what is compared, and how it reads in the table."""

    value: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    count: int = 0
    """How often the thing was done in all."""


@dataclass(frozen=True, slots=True)
class Target:
    """What wrk asks: a server, the paths it rotates over, and the content it sends (0 bytes: GET)."""

    port: int
    paths: Path
    api_key: str = "none"
    content_bytes: int = 0


def wrk(target: Target, *, clients: int, seconds: float, cpus: Cpus) -> Figure:
    """Requests per second of a closed loop of `clients` connections.

    Raises:
        MeasurementError: an answer outside 200 to 399, a broken connection, or no answer at all.
    """
    # Unique over rounds and over runs against one database, so that no update repeats a content.
    mark = f"{next(_round_numbers):03d}-{secrets.token_hex(4)}"
    printed = run(
        [
            *(
                "wrk",
                "--threads",
                "1",
                "--connections",
                str(clients),
                "--duration",
                f"{max(1, round(seconds))}s",
            ),
            *("--timeout", "30s", "--script", str(_LUA), f"http://127.0.0.1:{target.port}", "--"),
            *(str(target.paths), target.api_key, str(target.content_bytes), mark),
        ],
        cpus=cpus,
        seconds=seconds + _GRACE_SECONDS,
    )
    found = re.search(r"^JSON (\{.*\})$", printed, re.MULTILINE)
    if found is None:
        raise MeasurementError(f"wrk printed no summary:\n{printed}")
    summary = json.loads(found[1])
    if summary["refused"] or summary["broken"] or not summary["requests"]:
        raise MeasurementError("of {requests} requests {refused} were refused and {broken} broke".format(**summary))
    rate = summary["requests"] / summary["microseconds"] * 1e6
    return Figure(rate, summary["p50_ms"], summary["p99_ms"], summary["requests"])


def pgbench_script(sql: str, names: Sequence[str], expressions: Mapping[str, str]) -> str:
    """A script for pgbench: the statement with each `$n` replaced by the expression for its parameter.

    pgbench's own variables are numbers only, therefore texts and bytes are built from them in SQL.

    Raises:
        MeasurementError: a parameter has no expression.
    """
    missing = sorted(set(names) - set(expressions))
    if missing:
        raise MeasurementError(f"the statement has parameters the pgbench script can't make: {', '.join(missing)}")
    return re.sub(r"\$(\d+)", lambda position: f"({expressions[names[int(position[1]) - 1]]})", sql)


def pgbench(
    database: Database,
    script: Path,
    *,
    clients: int,
    seconds: float,
    variables: Mapping[str, int],
    cpus: Cpus,
) -> Figure:
    """Transactions per second of `clients` connections that run the script, prepared.

    Raises:
        MeasurementError: pgbench failed, or a transaction did.
    """
    printed = run(
        [
            *(str(BIN / "pgbench"), "--no-vacuum", "--protocol=prepared", f"--client={clients}", "--jobs=1"),
            *(f"--time={max(1, round(seconds))}", f"--file={script}"),
            *(f"--define={name}={value}" for name, value in variables.items()),
            database.url,
        ],
        cpus=cpus,
        seconds=seconds + _GRACE_SECONDS,
    )
    rate = re.search(r"^tps = ([\d.]+)", printed, re.MULTILINE)
    count = re.search(r"^number of transactions actually processed: (\d+)", printed, re.MULTILINE)
    failed = re.search(r"^number of failed transactions: (\d+)", printed, re.MULTILINE)
    if rate is None or count is None or (failed and int(failed[1])):
        raise MeasurementError(f"pgbench did not run clean:\n{printed}")
    return Figure(float(rate[1]), count=int(count[1]))
