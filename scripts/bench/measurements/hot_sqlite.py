"""Rows 3 and 4: one memory read or changed by 32 clients, one process, SQLite with `synchronous=FULL`."""

import json
import secrets
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

from app.memories import queries
from app.storage.rows import tables
from scripts.bench import answers, dataset
from scripts.bench.bench import CLIENTS, Bench
from scripts.bench.contest import Side
from scripts.bench.dataset import Shape
from scripts.bench.load import Figure, Target
from scripts.bench.processes import run
from scripts.bench.product import install, serve
from scripts.bench.report import Goal, Row, row_of_rates
from scripts.bench.written import each_made_a_version

SHAPE = Shape(stores=256, memories_per_store=4)
_REPOSITORY = Path(__file__).parents[3]


def get(bench: Bench) -> list[Row]:
    """Against Starlette without any database that answers the same bytes. The server has its own core."""
    installation = install(bench.new_path("sqlite-get"), SHAPE, database=None)
    paths = bench.write_lines("get.paths", installation.memory_paths())
    with serve(installation, cpus=bench.cores.server) as product:
        plan = bench.write_plan("get.json", answers.recorded(product))
        with bench.bound_server("bare_starlette", plan) as port:
            outcome = bench.compete(
                Side(lambda: bench.wrk(product.target(paths), cpus=bench.cores.rest)),
                Side(lambda: bench.wrk(Target(port, paths), cpus=bench.cores.rest)),
            )
    what = f"GET 1 KB, {CLIENTS} clients, SQLite; Starlette without a database"
    return [row_of_rates(what, outcome, Goal(at_least=0.6))]


def _plan(file: Path, workspace_id: str, seconds: float) -> dict[str, Any]:
    """The statements of one update, as the product's transaction runs them."""
    reads = [queries.LOCK.sqlite, queries.LOCK_STORE.sqlite]
    return {
        "file": str(file),
        "reads": [[statement.sql, statement.names] for statement in reads],
        "writes": [[statement.sql, statement.names] for statement in queries.CHANGE.sqlite],
        "targets": [
            [dataset.store_id(store), dataset.memory_id(SHAPE, store, memory)]
            for store, memory in dataset.targets(SHAPE)
        ],
        "constants": {
            "workspace_id": workspace_id,
            "operation": tables.MODIFIED,
            "count_change": 0,
            "actor_type": "api_actor",
            "actor_id": "apikey_of_the_benchmark",
        },
        "mark": secrets.token_hex(4),
        "content_bytes": SHAPE.content_bytes,
        "submitters": CLIENTS,
        "seconds": seconds,
    }


def _empty_stage(file: Path) -> None:
    """As the product's is when its mover is through."""
    connection = sqlite3.connect(file, isolation_level=None)
    try:
        connection.execute(f"DELETE FROM {tables.staged_contents.name}")
    finally:
        connection.close()


def update(bench: Bench) -> list[Row]:
    """Against a writer thread with group commit and the same statements. Both sides have all cores."""
    installation = install(bench.new_path("sqlite-update"), SHAPE, database=None)
    copy = bench.new_path("writer.db")
    shutil.copyfile(installation.sqlite_file, copy)
    paths = bench.write_lines("update.paths", installation.memory_paths())

    def bound() -> Figure:
        plan = bench.write_plan("writer.json", _plan(copy, installation.workspace_id, bench.options.seconds))
        printed = run(
            [sys.executable, "-m", "scripts.bench.bounds.sqlite_writer", str(plan)],
            directory=_REPOSITORY,
            cpus=bench.cores.every,
            seconds=bench.options.seconds + 60,
        )
        done = json.loads(printed)
        return Figure(done["updates_per_second"], count=done["updates"])

    with serve(installation, cpus=bench.cores.every) as product:
        target = product.target(paths, content_bytes=SHAPE.content_bytes)
        outcome = bench.compete(
            Side(
                lambda: each_made_a_version(
                    lambda: bench.wrk(target, cpus=bench.cores.every), installation.sqlite_file
                ),
                settle=product.drain_staged,
            ),
            Side(lambda: each_made_a_version(bound, copy), settle=lambda: _empty_stage(copy)),
        )
    what = f"update 1 KB, {CLIENTS} clients, different stores, SQLite; writer thread, same statements, no HTTP"
    return [row_of_rates(what, outcome, Goal(at_least=0.5))]
